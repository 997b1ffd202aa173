"""The four locking strategies behind one context manager. All keep every promise; they differ in cost."""
