//! The report of a month, for somebody who audits: what was promised, what was tested, what failed, and who did what.
//!
//! [`Facts`] is what the repository says, gathered once; [`Figures`] follows from it without I/O and is the JSON document;
//! [`html::page`] shows the same as one file that fetches nothing.

mod acts;
mod backups;
mod drills;
mod facts;
mod figures;
pub mod html;
mod loss;
mod period;

pub use facts::Facts;
pub use figures::Figures;
pub use period::{NoMonth, Period};

#[cfg(test)]
mod tests;
