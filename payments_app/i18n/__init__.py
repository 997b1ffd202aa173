"""What people read, in English and Indonesian."""
