//! What the whole-program tests share: goldens, tolerances, and a face for every executor.

pub mod compilers;
pub mod devices;
pub mod golden;
pub mod made;
pub mod random;
pub mod real;
pub mod requests;
pub mod stepper;
