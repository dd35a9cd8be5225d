//! Promises kept against a real kernel.
