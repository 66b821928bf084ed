"""Records of refused crystals, and the closed list of reasons.

Enters: a crystal that a reader, featurizer or worker refuses. Leaves: a `Quarantined` record. This
module does not know how a record is stored (`assay.sources.table`) or counted (`screening`).
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a crystal was refused; a new reason is a change of the quarantine schema."""

    UNREADABLE = "unreadable"
    """The file, page or table row could not be parsed at all."""
    MALFORMED = "malformed"
    """A required field is missing, or two fields contradict each other."""
    PARTIAL_DATA = "partial_data"
    """The server keeps a needed field behind a partial-data link."""
    UNSUPPORTED = "unsupported"
    """Valid, but not representable in a crystal batch: assemblies, implicit atoms, coordinates of
    more than the unit cell."""
    NOT_PERIODIC = "not_periodic"
    """The structure is not periodic in three dimensions."""
    UNKNOWN_SPECIES = "unknown_species"
    """A species is not a chemical element with atomic number 1 to 118."""
    BAD_OCCUPANCY = "bad_occupancy"
    """An occupancy is below 0 or above 1, or a site holds more than one atom in total."""
    NON_FINITE = "non_finite"
    """A coordinate, lattice vector or occupancy is NaN or infinite."""
    BAD_LATTICE = "bad_lattice"
    """The cell is singular, or its volume per atom is outside 1 to 1000 Å^3."""
    TOO_LARGE = "too_large"
    """More sites than the campaign accepts, or more of anything than a limit on files does."""
    ATOMS_TOO_CLOSE = "atoms_too_close"
    """Two atoms are closer than any bond, and are not alternatives of a split position."""
    FILTER_MISMATCH = "filter_mismatch"
    """The server sent a row that its own filter excludes."""
    SERVER_ERROR = "server_error"
    """The server announced the row but could not deliver it."""
    PREDICTION_FAILED = "prediction_failed"
    """The featurizer or a network failed on this crystal alone."""
    WORKER_DIED = "worker_died"
    """The worker process died each time it met this crystal."""
    NOT_RELAXED = "not_relaxed"
    """Forces or stress were still too large after the last step of a relaxation, or no symmetry was
    found that it could keep."""
    EXPLODED = "exploded"
    """The cell grew beyond every bound while it was relaxed, or a force was not finite, or was too
    long for a label that is learned."""
    COLLAPSED = "collapsed"
    """The cell or a distance between atoms shrank beyond every bound while it was relaxed."""


class Stage(StrEnum):
    """Where in a campaign a crystal was refused."""

    PULL = "pull"
    FEATURIZE = "featurize"
    PREDICT = "predict"
    RELAX = "relax"


@dataclass(frozen=True)
class Quarantined:
    """One refused crystal: its id, its origin, and the reason."""

    id: str
    """Identifier, `provider/id`; never used as a file name."""
    origin: str
    """URL or path the row came from."""
    stage: Stage
    reason: Reason
    message: str
    """One line for the user: the offending value and the accepted range."""


REMEDIES = {
    Reason.UNREADABLE: "check that the file is complete, and open it with the program that wrote it",
    Reason.MALFORMED: "complete the missing or contradicting field",
    Reason.NON_FINITE: "replace the NaN or infinite number in the file",
    Reason.BAD_LATTICE: "check cell lengths, angles and their unit (Å)",
    Reason.BAD_OCCUPANCY: "occupancies of a site must lie in 0 to 1 and sum to at most 1",
    Reason.UNKNOWN_SPECIES: "use element symbols that the model knows",
    Reason.ATOMS_TOO_CLOSE: "check for a site listed twice, for wrong symmetry, or for split sites without occupancies",
    Reason.TOO_LARGE: "use the primitive cell; split a file beyond a limit, or convert it to Parquet",
    Reason.NOT_PERIODIC: "give a cell that repeats in three dimensions",
    Reason.PARTIAL_DATA: "the server keeps it elsewhere; take the entry from the provider's bulk files",
    Reason.UNSUPPORTED: "give independent sites of one unit cell, without attached atoms or assemblies; "
    "to relax it, a whole atom on each",
    Reason.FILTER_MISMATCH: "nothing to do: the server sent what was not asked for",
    Reason.SERVER_ERROR: "tell the provider, or ask for this entry alone later",
    Reason.PREDICTION_FAILED: "report this, with the crystal: as a defect of Assay, or to the makers of a force field",
    Reason.WORKER_DIED: "look at the cell: it may be enormous; with more memory per worker it may pass",
    Reason.NOT_RELAXED: "allow more steps, or larger forces that remain",
    Reason.EXPLODED: "look at the cell: its atoms may be far too close, or the potential may not know such a crystal",
    Reason.COLLAPSED: "look at the cell: its atoms may be far apart, or the potential may not know such a crystal",
}
"""Advice to the user for each reason."""
