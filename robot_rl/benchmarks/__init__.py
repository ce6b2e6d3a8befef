"""What the learners reach and how fast they are, measured beside published figures and other libraries."""
