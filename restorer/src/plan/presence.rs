//! Whether a base backup is there as a whole, by the names and sizes of its objects: a restore is refused before it writes, or a
//! delta before it takes anything away, and not hours later.

use std::collections::{BTreeMap, BTreeSet};

use walseal_common::repository::{BaseId, Label, ObjectName, Repository, RepositoryError};

use super::inventory::InventoryError;
use super::refusal::PlanError;
use super::{PathStep, Plan};

/// Most objects that are named where several are not as they should be.
const NAMED: usize = 3;

/// Older base backups that are looked at for one that is whole.
const OLDER: usize = 8;

/// Looks for the data objects of the base backup of `plan`, and of those before it that it refers to: a list of names for each of them.
///
/// Errors: [`PlanError::BaseNotWhole`], with an older one that is; the store's.
pub async fn check(repository: &Repository, plan: &Plan) -> Result<(), PlanError> {
    let id = &plan.base.id;
    let label = repository.label(id).await.map_err(InventoryError::from)?;
    let Flaws { named, count, of } = flaws(repository, &label).await.map_err(InventoryError::from)?;
    if named.is_empty() {
        return Ok(());
    }
    let instead = whole_before(repository, plan).await.map_err(InventoryError::from)?;
    Err(PlanError::BaseNotWhole { id: id.clone(), named, count, of, instead })
}

/// The newest base backup before that of `plan`, on its way, of which all is there, if one of the next few is.
async fn whole_before(repository: &Repository, plan: &Plan) -> Result<Option<BaseId>, RepositoryError> {
    let older = repository.base_ids().await?;
    for older in older.into_iter().rev().filter(|older| *older < plan.base.id).take(OLDER) {
        let is_whole = async {
            let label = repository.label(&older).await?;
            Ok::<_, RepositoryError>(is_on_the_way(plan, &label) && flaws(repository, &label).await?.named.is_empty())
        };
        match is_whole.await {
            Ok(true) => return Ok(Some(older)),
            Err(error) if !error.is_permanent() => return Err(error),
            // Its label cannot be used either.
            Ok(false) | Err(_) => {}
        }
    }
    Ok(None)
}

/// Whether a base backup lies on a branch of the plan's path, before the path leaves it. The WAL from it on is another question.
fn is_on_the_way(plan: &Plan, label: &Label) -> bool {
    let last = plan.path.last().map(|step| step.branch);
    let leads = |step: &PathStep| step.branch == label.branch && (Some(step.branch) == last || label.stop <= step.to);
    plan.path.iter().any(leads)
}

/// What is not there as a label says.
struct Flaws {
    /// The first of them, in words.
    named: Vec<String>,
    count: usize,
    /// Objects that were looked for.
    of: usize,
}

async fn flaws(repository: &Repository, label: &Label) -> Result<Flaws, RepositoryError> {
    let of = label.objects.len();
    let mut expected: BTreeMap<&str, u64> =
        label.objects.iter().map(|object| (object.name.as_str(), object.size)).collect();
    let mut found = BTreeMap::new();
    for folder in folders(label) {
        repository
            .for_each_data_object(&folder, |name, size| {
                if expected.get(name) == Some(&size) {
                    expected.remove(name);
                } else if expected.contains_key(name) {
                    found.insert(name.to_owned(), size);
                }
            })
            .await?;
    }
    let words = |(name, size): (&&str, &u64)| match found.get(*name) {
        Some(found) => format!("{name} has {found} bytes instead of {size}"),
        None => format!("{name} is missing"),
    };
    Ok(Flaws { named: expected.iter().take(NAMED).map(words).collect(), count: expected.len(), of })
}

/// The base backups that hold objects of `label`.
fn folders(label: &Label) -> BTreeSet<BaseId> {
    let data = |name: &str| match name.parse() {
        Ok(ObjectName::Data(id, _)) => Some(id),
        _ => None,
    };
    label.objects.iter().filter_map(|object| data(&object.name)).collect()
}
