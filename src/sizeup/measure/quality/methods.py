"""How rows of the ledger name what measures quality; a name changes when its numbers would."""

CODING = "sizeup coding/2"
LOSS = "llama.cpp loss/1"
STANDARD = "lm-evaluation-harness"
