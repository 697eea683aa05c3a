"""The command `closeseq`. Only here is click known, and only here is a clock read.

One file a command has its options and its help, and loads nothing else, so that `--help` answers at once.
What it runs lies beside it:

    main         the command and its subcommands; exit statuses
    analyze      `analyze`, `timeline`; analyze_run: one run of them; cluster_run: by a Dask cluster
    states       `states`; states_run
    live         `live`, `follow`; live_setup: capture, files, privileges; live_run: the loop;
                 live_output: what is written, and how much of it
    lab          `lab`; lab_run
    explain      `explain`

Shared:

    options      options and kinds of values
    output       where the report goes: standard output, or a file that appears whole or not at all
    status       exit statuses, and messages on standard error
    terminal     width, progress bar, status line
    privileges   how to get the right to capture, and how to give it up
    timings      `--timings`: where the time of a run went
"""
