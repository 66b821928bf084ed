"""A small force field made from a large one: crystals, displacements, labels, students.

Enters: a distillation recipe. Leaves: a folder of students that
`assay.models.potentials.student` reads. This package does not know the command line.
"""
