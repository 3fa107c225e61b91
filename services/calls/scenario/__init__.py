"""Scripts of conversations: reading them, and the ones that come with the program."""
