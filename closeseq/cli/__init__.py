"""The command `closeseq`. Only this package uses click and reads a clock.

Each command's module has its options and help, and imports nothing else, so that `--help` is quick. What the
command runs is in the modules named after it:

    main         the command and its subcommands; exit statuses
    analyze      `analyze`, `timeline`; analyze_run: one run; cluster_run: one on a Dask cluster;
                 parquet_run: one that writes tables; picture_run: one that draws pictures;
                 annotate_run: one that writes the capture again, with comments
    states       `states`; states_run
    diff         `diff`; diff_run
    report       `report`; report_run
    live         `live`, `follow`; live_setup: capture, files, privileges; live_run: the loop;
                 live_output: what is written, and how much of it; metrics_output: counters for Prometheus
    lab          `lab`; lab_run
    explain      `explain`
    wireshark    `wireshark`, which installs closeseq there
    extcap       `extcap`, which Wireshark runs; extcap_run

Shared:

    options      options, and the types of their values
    one_capture  what commands that show one capture share
    requests     what each command was asked, as typed values
    output       where the report goes: standard output, or a file that is replaced as a whole
    terminal     help, exit statuses, messages on standard error, progress bar, status line
    privileges   how to get the right to capture, and how to give it up
    timings      `--timings`: how long each stage of a run took
"""
