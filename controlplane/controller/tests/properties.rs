//! What holds for any set of objects, and for any text.

mod random;

use std::path::Path;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{Object, Objects};
use penstock_controlplane::source::folder::Texts;
use penstock_controlplane::status::{self, Progress, Stamp, Statuses};
use penstock_controlplane::store::Store;
use penstock_controlplane::translate::{Known, Translation, translate, translate_with};
use penstock_feed::model::Protocol;
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use random::{classes, fitting, object};

/// A set of objects: some classes, and many of the rest; of one name only the first.
fn objects() -> impl Strategy<Value = Vec<String>> {
    vec(prop_oneof![2 => object(), 1 => fitting()], 0..24).prop_map(|texts| {
        let mut texts = [classes(), texts].concat();
        let mut seen = Vec::new();
        texts.retain(|text| {
            let head: Vec<_> = text.lines().skip(1).take(2).collect();
            // kind, name and namespace, without what follows
            let head = head.join(" ").replace('}', "");
            let names = head.split(", ").take(2).filter(|part| part.contains("name"));
            let key: Vec<_> = names.map(str::to_owned).collect();
            let new = !seen.contains(&key);
            seen.push(key);
            new
        });
        texts
    })
}

fn translation(objects: &Objects) -> Translation {
    let translation = translate(objects);
    assert_eq!(translation.state.check(), [], "a data plane would refuse the state");
    sound(objects, &translation);
    is_kept(objects, &translation);
    let (now, previous) = (Time(Timestamp::UNIX_EPOCH), Statuses::new());
    let stamp = Stamp { now: &now, previous: &previous };
    for progress in [
        Progress::default(),
        Progress {
            acknowledged: Some(translation.state.clone()),
            l7: Some(translation.l7.clone()),
            ..Progress::default()
        },
    ] {
        let statuses = status::conclude(objects, &translation, &progress, &stamp);
        for object in statuses.values() {
            round_trip(object);
        }
    }
    translation
}

/// What holds of any translation: a place has one owner, and every answer is of an object that is there.
fn sound(objects: &Objects, translation: &Translation) {
    let forwarded: Vec<_> = translation
        .state
        .listeners
        .iter()
        .map(|(_, l)| (l.vip, l.protocol, l.ports.first()))
        .collect();
    for place in translation.l7.places.keys() {
        let both = forwarded.contains(&(place.ip(), Protocol::Tcp, place.port()));
        assert!(!both, "{place} is the data plane's and the L7 tier's");
    }
    let answered =
        translation.gateways.iter().map(|(name, gateway)| (name, gateway.listeners.len()));
    for (name, listeners) in answered {
        assert_eq!(objects.gateways[name].spec.listeners.len(), listeners, "{name}");
    }
}

/// What a Gateway has stays its own, whoever comes.
fn is_kept(objects: &Objects, first: &Translation) {
    let known = Known { held: Some(&first.addresses), ..Known::default() };
    let second = translate_with(objects, known);
    assert_eq!(first.addresses, second.addresses);
    assert_eq!(first.state, second.state);
}

/// A status file reads as the object it was written from.
fn round_trip(object: &Object) {
    let text = serde_saphyr::to_string(object).unwrap();
    let contents = manifest::read("status.yaml", &text);
    assert_eq!(contents.findings, [], "{text}");
    assert_eq!(&contents.manifests[0].object, object, "{text}");
}

/// Enough for every run; `PROPTEST_CASES` asks for more, up to what takes a few minutes, since a case
/// translates three times and reads every status back.
fn cases() -> ProptestConfig {
    let asked =
        std::env::var_os("PROPTEST_CASES").map(|_| ProptestConfig::default().cases.min(2000));
    ProptestConfig::with_cases(asked.unwrap_or(64))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_order_of_objects_and_files_means_nothing(
        texts in objects(), order in vec(any::<Index>(), 24), files in 1_usize..5
    ) {
        let whole = manifest::read("all.yaml", &texts.join("---\n"));
        prop_assert!(whole.findings.iter().all(|f| !f.message.contains("given twice")));
        let straight = translation(&whole.manifests.into_iter().map(|m| m.object).collect());

        let mut shuffled = texts;
        for (at, other) in order.iter().enumerate().take(shuffled.len()) {
            let other = other.index(shuffled.len());
            shuffled.swap(at, other);
        }
        let mut split = vec![String::new(); files];
        for (at, text) in shuffled.iter().enumerate() {
            split[at % files].push_str(&format!("{text}---\n"));
        }
        let mut objects = Objects::default();
        for text in &split {
            for found in manifest::read("part.yaml", text).manifests {
                objects.insert(found.object);
            }
        }
        prop_assert_eq!(straight, translation(&objects));
    }

    #[test]
    fn what_is_saved_is_what_is_loaded(texts in objects()) {
        let now = Time(Timestamp::UNIX_EPOCH);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.json");
        let mut store = Store::default();
        store.update(Texts::from([("all.yaml".to_owned(), Ok(texts.join("---\n")))]));
        let before = store.in_force(&now);
        store.save(&file).unwrap();
        let after = Store::load(&file).unwrap().in_force(&now);
        prop_assert_eq!(before.objects, after.objects);
        prop_assert_eq!(before.origins, after.origins);
    }

    #[test]
    fn no_text_can_do_harm(
        promise in any::<Index>(), cut in any::<Index>(), until in any::<Index>(), noise in "[\\PC\n]{0,12}"
    ) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut promises: Vec<_> = std::fs::read_dir(golden).unwrap().map(|e| e.unwrap().path()).collect();
        promises.sort();
        let mut text = std::fs::read_to_string(promise.get(&promises).join("in.yaml")).unwrap();
        let (a, b) = (cut.index(text.len()), until.index(text.len()));
        let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 40));
        if text.is_char_boundary(from) && text.is_char_boundary(to) {
            text.replace_range(from..to, &noise);
        }
        let contents = manifest::read("in.yaml", &text);
        translation(&contents.manifests.into_iter().map(|m| m.object).collect());
    }
}
