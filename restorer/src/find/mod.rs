//! Finding a moment in the WAL: which transaction did what to which table, and where a restore has to stop to be without it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`names`] | names of relations, from base backups and from the catalog's own WAL |
//! | `lineage` | names of relations that were made before a range, and after the base backup before it |
//! | [`table`], `telling` | what was done to one table; from files to tables |
//! | [`finding`] | what a transaction did, told as what was done to tables |
//! | [`activity`] | rows and bytes of tables over time |
//! | [`wanted`] | what is looked for, and which finding is the worst |
//! | [`question`] | what is asked |
//! | [`search`] | what is asked, answered from the WAL that may know |
//! | `shelf`, `course` | the summaries that lie on the way; what they tell, and where they do not, the WAL |
//! | `answer` | what is kept of what is found |

pub mod activity;
mod answer;
mod course;
pub mod finding;
mod lineage;
pub mod names;
pub mod question;
pub mod search;
mod shelf;
pub mod table;
mod telling;
pub mod wanted;

pub use activity::{Activity, Amount, Series, Track};
pub use finding::Finding;
pub use names::Names;
pub use question::{Question, RecordLine};
pub use search::{FindError, Searched, search};
pub use table::{Kind, Table, TableChange};
pub use wanted::{TablePattern, Wanted};
