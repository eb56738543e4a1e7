"""Reading of written answers: what a reply asserts, and the comparison with accepted answers."""
