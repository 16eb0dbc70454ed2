//! What are the weights of all versions, where some of them get other shares?

use std::collections::BTreeMap;

use quern_wire::{Percent, Share};

use crate::live::LiveModel;

/// The weight of each version.
pub(super) fn shown(model: &LiveModel) -> BTreeMap<String, u64> {
    let versions = model.versions.iter().enumerate();
    versions.map(|(place, version)| (version.version.clone(), model.route.weight(place))).collect()
}

/// Whether two weightings divide requests in the same way.
pub(super) fn is_alike(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u32>) -> bool {
    let totals: (u128, u128) =
        (before.values().map(|w| u128::from(*w)).sum(), after.values().map(|w| u128::from(*w)).sum());
    before.values().zip(after.values()).all(|(b, a)| u128::from(*b) * totals.1 == u128::from(*a) * totals.0)
}

/// The weights of all versions, of those `before` and the shares that are `asked` for.
pub(super) fn weigh(
    before: &BTreeMap<String, u64>,
    asked: &BTreeMap<String, Share>,
) -> std::result::Result<BTreeMap<String, u32>, String> {
    let (mut weights, mut percents) = (BTreeMap::new(), BTreeMap::new());
    for (version, share) in asked {
        match share {
            Share::Weight(weight) => {
                weights.insert(version, u128::from(*weight));
            }
            Share::Percent(percent) => {
                percents.insert(version, u128::from(percent.parts()));
            }
        }
    }
    if percents.is_empty() {
        let mut all: BTreeMap<&String, u128> =
            before.iter().map(|(version, weight)| (version, u128::from(*weight))).collect();
        all.extend(weights);
        if all.values().all(|weight| *weight == 0) {
            return Err("every weight is 0, so no version would answer; give one a weight".to_owned());
        }
        return whole(all);
    }
    if !weights.is_empty() {
        return Err(
            "give weights or percentages, not both: `50` is a weight beside those of the other versions, \
                    `\"50%\"` a part of all"
                .to_owned(),
        );
    }
    let all = u128::from(Percent::PARTS);
    let (named, shown) = (percents.values().sum::<u128>(), |parts: u128| parts as f64 / 1e6);
    let others: BTreeMap<&String, u128> = before
        .iter()
        .filter(|(version, _)| !percents.contains_key(version))
        .map(|(version, weight)| (version, u128::from(*weight)))
        .collect();
    if named > all {
        return Err(format!("the percentages add up to {} %, and all there is are 100 %", shown(named)));
    }
    let rest = all - named;
    if others.is_empty() && rest > 0 {
        return Err(format!("the percentages of all versions add up to {} %, not to 100 %", shown(named)));
    }
    let common = others.values().copied().fold(0, gcd).max(1);
    let theirs = others.values().sum::<u128>() / common;
    if theirs == 0 && rest > 0 {
        let names: Vec<String> = others.keys().map(|version| format!("`{version}`")).collect();
        return Err(format!(
            "{} % are left, and what is not named ({}) has no weight to be scaled; name the percentages of all versions",
            shown(rest),
            names.join(", ")
        ));
    }
    // Parts of `all` times `theirs`: so both the percentages and the shares of the rest are whole numbers.
    let named = percents.iter().map(|(version, parts)| (*version, parts * theirs.max(1)));
    let scaled = others.iter().map(|(version, weight)| (*version, weight / common * rest));
    whole(readable(named.chain(scaled).collect()))
}

/// The same shares in small numbers: of a hundred, a thousand and so on where whole numbers do, else reduced.
fn readable(weights: BTreeMap<&String, u128>) -> BTreeMap<&String, u128> {
    let common = weights.values().copied().fold(0, gcd).max(1);
    let total = weights.values().sum::<u128>() / common;
    let round = (2..=8).map(|digits| 10u128.pow(digits)).find(|round| round % total == 0);
    let factor = round.map_or(1, |round| round / total);
    weights.into_iter().map(|(version, weight)| (version, weight / common * factor)).collect()
}

fn whole(weights: BTreeMap<&String, u128>) -> std::result::Result<BTreeMap<String, u32>, String> {
    let whole = |(version, weight): (&String, u128)| {
        let weight = u32::try_from(weight).map_err(|_| {
            "no weights of 32 bits divide requests exactly so; name the percentages of all versions"
                .to_owned()
        })?;
        Ok((version.clone(), weight))
    };
    weights.into_iter().map(whole).collect()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<T: Clone>(pairs: &[(&str, T)]) -> BTreeMap<String, T> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn weighed(before: &[(&str, u64)], asked: &[(&str, &str)]) -> std::result::Result<Vec<u32>, String> {
        let asked: Vec<(&str, Share)> =
            asked.iter().map(|(version, share)| (*version, share.parse().unwrap())).collect();
        weigh(&map(before), &map(&asked)).map(|weights| weights.into_values().collect())
    }

    #[test]
    fn a_weight_leaves_the_others_as_they_are_and_a_percentage_scales_them() {
        let two = [("1", 90), ("2", 10)];
        let three = [("1", 60), ("2", 30), ("3", 10)];
        for (before, asked, after) in [
            (&two[..], &[("2", "50")][..], &[90, 50][..]),
            (&two, &[("2", "0")], &[90, 0]),
            (&two, &[("2", "50%")], &[50, 50]),
            (&two, &[("2", "100%")], &[0, 100]),
            (&two, &[("2", "12.5%")], &[875, 125]),
            (&two, &[("1", "30%"), ("2", "70%")], &[30, 70]),
            (&three, &[("3", "40%")], &[40, 20, 40]),
            (&three, &[("1", "0.001%")], &[100, 7_499_925, 2_499_975]),
            (&[("1", 1), ("2", 2), ("3", 0)], &[("3", "50%")], &[1, 2, 3]),
            (&[("1", 1), ("2", 0)], &[("1", "0%"), ("2", "100%")], &[0, 100]),
        ] {
            assert_eq!(weighed(before, asked).unwrap(), after, "{asked:?}");
        }
        for (before, asked, why) in [
            (&two[..], &[("1", "0"), ("2", "0")][..], "every weight is 0"),
            (&two, &[("1", "50"), ("2", "50%")], "not both"),
            (&two, &[("1", "60%"), ("2", "60%")], "add up to 120 %"),
            (&two, &[("1", "60%"), ("2", "30%")], "all versions add up to 90 %"),
            (
                &[("1", 0), ("2", 1)],
                &[("2", "90.5%")],
                "9.5 % are left, and what is not named (`1`) has no weight",
            ),
            (
                &[("1", 4_000_000_007), ("2", 4_000_000_009), ("3", 1)],
                &[("3", "1.3%")],
                "name the percentages",
            ),
        ] {
            let said = weighed(before, asked).unwrap_err();
            assert!(said.contains(why), "{asked:?}: {said}");
        }
    }

    #[test]
    fn percentages_are_exact_and_the_others_keep_their_proportions() {
        let weights = [0u64, 1, 2, 3, 7, 10, 90, 97];
        let mut tried = 0;
        for (a, b) in weights.iter().flat_map(|a| weights.map(|b| (*a, b))).filter(|(a, b)| a + b > 0) {
            for percent in ["0%", "0.5%", "1%", "33.3333%", "50%", "99.9%", "100%"] {
                let Share::Percent(parts) = percent.parse().unwrap() else { panic!("{percent}") };
                let after = weighed(&[("a", a), ("b", b), ("c", 5)], &[("c", percent)]).unwrap();
                let [x, y, z] = after[..] else { panic!("{after:?}") };
                let [x, y, z] = [x, y, z].map(u128::from);
                assert_eq!(
                    z * u128::from(Percent::PARTS),
                    (x + y + z) * u128::from(parts.parts()),
                    "{percent}: {after:?}"
                );
                assert_eq!(x * u128::from(b), y * u128::from(a), "{percent}: {after:?}");
                tried += 1;
            }
        }
        assert_eq!(tried, 441);
    }
}
