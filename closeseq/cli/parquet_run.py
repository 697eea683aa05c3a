"""`closeseq analyze -f parquet`: the connections of all captures as tables, in a directory."""

from __future__ import annotations

from closeseq.cli.analyze_run import Job, meant
from closeseq.cli.terminal import Refusal, Status
from closeseq.errors import TablesError
from closeseq.tables.parquet import ParquetFolder, arrow_tables


class ParquetJob(Job):
    """One run of `analyze -f parquet`."""

    def run(self) -> Status:
        """Read and write; return the exit status.

        Raises:
            Refusal: no directory is named, or it cannot be written to.
        """
        request = self.request
        if request.output in {None, "-"}:
            raise Refusal("-f parquet writes four files: name a directory with -o")
        assert request.output is not None
        named = meant(request.captures)
        try:
            with ParquetFolder(request.output, force=request.force) as folder:
                for selection in self.selections(self.chains(named), folder):
                    for tables in selection.analysis.gathered(arrow_tables, selection.indices):
                        folder.write(tables)
        except TablesError as error:
            raise Refusal(str(error)) from error
        return self.status
