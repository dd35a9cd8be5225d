//! Where objects come from: a folder of files, or the API server of a cluster. A pushed bundle comes beside
//! them. A control process has one source.

pub mod cluster;
pub mod folder;
