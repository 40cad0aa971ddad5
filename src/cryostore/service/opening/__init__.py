"""Creating and opening stores."""
