"""Every command of `assay`: its module and function, and one sentence for `--help`."""

from __future__ import annotations

_AT = "assay.screening.commands"
_ON = f"{_AT}.results"
COMMANDS: dict[str, tuple[str, str]] = {
    "run": (f"{_AT}.run_campaign:run", "Run a campaign, or go on with a stopped one: pull, score, rank."),
    "pull": (f"{_AT}.run_campaign:pull", "Pull the sources of a campaign into its snapshot, and stop there."),
    "rank": (f"{_AT}.run_campaign:rank", "Rank a scored campaign again, for example with --set rank.by=lower."),
    "report": (f"{_AT}.run_campaign:report", "Write the outputs of a scored campaign again, report.html among them."),
    "status": (f"{_ON}.inspect_campaign:status", "Show how far a campaign is, also while it runs."),
    "verify": (f"{_ON}.verify_campaign:verify", "Read a campaign folder again; list damaged, lost or changed files."),
    "unlock": (f"{_ON}.inspect_campaign:unlock", "Remove the lock that a dead process left in a campaign folder."),
    "errors": (f"{_ON}.inspect_campaign:errors", "List the refused crystals of a campaign by cause, with remedies."),
    "export": (f"{_ON}.export_candidates:export", "Write the best of a campaign as CIF, POSCAR, tables and more."),
    "serve": (f"{_AT}.serving.serve_campaigns:serve", "Serve campaigns as pages, REST, OPTIMADE; predict uploads."),
    "select": (f"{_ON}.select_batch:select", "Choose what to measure next from a finished campaign."),
    "learn": (f"{_ON}.learn_measured:learn", "Learn measured values, and rank the campaign again."),
    "predict": (f"{_AT}.predict_files:predict", "Predict the crystals in some files: mean ± std with its interval."),
    "explain": (f"{_AT}.explain_files:explain", "Show what each atom adds to a prediction: tables and pictures."),
    "relax": (f"{_AT}.relax_files:relax", "Relax crystals with a force field, atoms and cell together."),
    "hull": (f"{_AT}.tables.above_hull:hull", "Say how far formulas lie above a convex hull, by known energies."),
    "check-potential": (f"{_AT}.force_fields:check_potential", "Check a force field: slopes, dynamics, pairs."),
    "render": (f"{_AT}.render_files:render", "Draw crystals as the vision networks see them: one PNG per view."),
    "distil": (f"{_AT}.force_fields:distil", "Make a small, fast force field from a large one."),
    "train": (f"{_AT}.train_ensemble:train", "Train an ensemble by a recipe, calibrate it, and write its card."),
    "evaluate": (f"{_AT}.evaluate_ensemble:evaluate", "Measure an ensemble on known values, beside baselines."),
    "study": (f"{_AT}.study_recipes:study", "Learn one property in several ways on the same rows; write the table."),
    "simulate": (f"{_ON}.simulate_campaign:simulate", "Replay known values as a sequential campaign."),
    "tune": (f"{_AT}.study_recipes:tune", "Search the sizes and rates of a recipe with Ray Tune."),
    "store": (f"{_ON}.inspect_store:app", "List, check or shrink the store of outputs that campaigns share."),
    "model": (f"{_AT}.import_models:app", "Import checkpoints from elsewhere."),
}  # fmt: skip
"""Name -> (module:function, first sentence of the function's docstring); one line per command."""
