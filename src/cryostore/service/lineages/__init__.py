"""How jobs of a resource follow each other: starting one, rolling one back, pruning what nobody sees."""
