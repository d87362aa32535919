//! Retention as promises: what stays restorable is decided first, and everything else goes.
//!
//! | module | holds |
//! | --- | --- |
//! | [`policy`] | what is promised |
//! | [`holdings`] | what the repository holds, as plain data; [`survey`] reads it |
//! | [`pieces`], [`branch`] | of it the objects of base backups, and what lies on a branch |
//! | [`path`] | the ways through the branches, and the WAL on each |
//! | [`keep`] | what stays, and why |
//! | [`locks`] | what object lock does not let go yet |
//! | [`plan`] | what goes, in which order, and what can be restored before and after |
//! | [`execute`] | does it, in two phases (case 40) |
//! | [`keeper`] | does so in the daemon, after each base backup |
//! | [`veto`] | asks before a window's start moves |
//!
//! Deciding is pure: holdings, a policy and a time make a plan. So thousands of random histories are tested in seconds.

pub mod branch;
pub mod execute;
pub mod holdings;
pub mod keep;
mod keeper;
pub mod locks;
pub mod path;
pub mod pieces;
pub mod plan;
pub mod policy;
mod survey;
#[cfg(test)]
mod tests;
pub mod veto;

pub use execute::{PruneError, Pruned, Pruner, Refused};
pub use holdings::Holdings;
pub use keeper::{Keeper, RetentionStatus};
pub use plan::Plan;
pub use policy::Policy;
