"""Operations on chunks: put, link, read, and list the damaged ones."""
