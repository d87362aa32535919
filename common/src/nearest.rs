//! The known names that a wrong one most looks like.

/// How alike two names are that one may have been meant for the other, from 0 to 1.
const ALIKE: f64 = 0.6;

/// The candidate nearest to `name`, if any is near enough to be what was meant.
pub fn of<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    likeness(name, candidates).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, candidate)| candidate)
}

/// As [`of`], the `most` nearest ones, the nearest first, each once.
pub fn several<'a>(name: &str, candidates: impl Iterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = likeness(name, candidates).collect();
    near.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
    near.dedup();
    near.into_iter().map(|(_, candidate)| candidate).take(most).collect()
}

fn likeness<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (f64, &'a str)> {
    let score = |candidate: &'a str| (strsim::normalized_damerau_levenshtein(name, candidate), candidate);
    candidates.map(score).filter(|(score, _)| *score >= ALIKE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_strangers_not_at_all() {
        let known = ["orders", "order_items", "customers", "borders", "orders"];
        assert_eq!(several("ordres", known.into_iter(), 3), ["orders", "borders"]);
        assert_eq!(several("ordres", known.into_iter(), 1), ["orders"]);
        assert_eq!(of("ordres", known.into_iter()), Some("orders"));
        assert_eq!(of("invoices", known.into_iter()), None);
    }
}
