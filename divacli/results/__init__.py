"""A folder of results: written whole, accounted for, recorded, read again."""
