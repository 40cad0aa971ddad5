"""Operations on objects: put and delete whole ones, upload large ones, read them back."""
