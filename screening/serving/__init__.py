"""Results and predictions over HTTP: pages, REST, OPTIMADE.

Enters: campaign folders, read by `assay.screening.folder.results`, and an ensemble. Leaves: a web
application. This layer never imports campaigns or their runners, and writes into no campaign.
"""
