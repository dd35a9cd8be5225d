//! Boxes elsewhere: what each must know, and how it is told.

pub mod admission;
pub mod carries;
pub mod needs;
