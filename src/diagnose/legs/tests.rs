//! Which legs are joined, and which are not.
