"""Why a payment ended as it did: what the rows say, in words for people and as values for programs. It only reads."""
