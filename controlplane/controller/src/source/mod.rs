//! Where objects come from. Today that is a folder of files; a cluster and a pushed bundle come beside it.

pub mod folder;
