"""The report: pages for people. `sfumato.report.parts` is what plugins make sections of."""
