//! The map against a model: an ordered map of keys and values.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use holdfast_store::object::ObjectStore;
use proptest::prelude::*;

use super::{Edits, Map, MapWriter};
use crate::repository::format::Format;
use crate::repository::shelf::Shelf;
use crate::repository::tests::Memory;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn empty(store: &Arc<Memory>) -> Map {
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let store: Arc<dyn ObjectStore> = store.clone();
    let shelf = Arc::new(Shelf::new(store, key, Format::V2));
    Map::new(shelf, "prod".parse().unwrap(), [], None)
}

/// Returns the map with the changes made to it, as a reader that remembers nothing has it.
fn next(store: &Arc<Memory>, map: &Map, round: usize, edits: Edits, is_new: bool) -> Map {
    let next = map.maps().keys().max().map_or(1, |last| last + 1);
    let folder = format!("20260101T{round:06}Z-point-0000000000");
    let mut writer = MapWriter::new(map.clone(), folder, next).unwrap();
    if is_new {
        writer.rewrite().unwrap();
    }
    writer.update(edits).unwrap();
    let (made, _, _) = writer.finish().unwrap();
    let maps: Vec<_> = made.maps().values().cloned().collect();
    let fresh = empty(store);
    Map::new(
        Arc::clone(&fresh.shelf),
        "prod".parse().unwrap(),
        maps,
        made.root(),
    )
}

fn check(map: &Map, model: &Model) {
    let all: Vec<_> = map.scan(&[]).map(Result::unwrap).collect();
    assert!(all.iter().map(|(key, value)| (key, value)).eq(model));
    let live: u32 = map.maps().values().map(|record| record.live).sum();
    assert_eq!(live, nodes(map), "nodes in use");
}

fn nodes(map: &Map) -> u32 {
    fn below(map: &Map, place: &super::NodeRef) -> u32 {
        match map.node(place, super::Ahead::One).unwrap().as_ref() {
            super::Node::Leaf(_) => 1,
            super::Node::Inner(children) => {
                let each = children.iter().map(|(_, child)| below(map, child));
                1 + each.sum::<u32>()
            }
        }
    }
    map.root().map_or(0, |root| below(map, &root))
}

fn key(number: u16) -> Vec<u8> {
    // Keys of different lengths, with the same beginnings.
    let mut key = (number / 7).to_be_bytes().to_vec();
    key.resize(2 + usize::from(number % 7) * 9, b'x');
    key
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_edits_give_what_a_model_gives(
        rounds in prop::collection::vec(
            (prop::collection::btree_map(0_u16..6000, prop::option::weighted(0.6, 0_usize..40), 1..700), any::<bool>()),
            1..8,
        ),
        asked in prop::collection::vec(0_u16..6000, 20),
    ) {
        let store = Arc::new(Memory::default());
        let mut map = empty(&store);
        let mut model = Model::new();
        for (round, (changes, is_new)) in rounds.into_iter().enumerate() {
            let edits: Edits = changes
                .iter()
                .map(|(number, value)| (key(*number), value.map(|length| vec![7; length])))
                .collect();
            for (key, value) in &edits {
                match value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(key),
                };
            }
            map = next(&store, &map, round, edits, is_new);
            check(&map, &model);
        }
        for number in asked {
            let key = key(number);
            let got = map.get(&key).unwrap();
            prop_assert_eq!(got.as_ref(), model.get(&key));
            let floor = model.range(..=key.clone()).next_back();
            let found = map.floor(&key).unwrap();
            prop_assert_eq!(found.as_ref().map(|(key, value)| (key, value)), floor);
            let from: Vec<_> = map.near(&key).take(3).map(Result::unwrap).collect();
            let expected = model.range(key..).take(3);
            prop_assert!(from.iter().map(|(key, value)| (key, value)).eq(expected));
        }
    }
}

#[test]
fn what_is_emptied_is_empty_and_can_be_filled_again() {
    let store = Arc::new(Memory::default());
    let all = |value: Option<Vec<u8>>| -> Edits {
        (0..5000)
            .map(|number| (key(number), value.clone()))
            .collect()
    };
    let full = next(&store, &empty(&store), 1, all(Some(vec![1; 20])), false);
    let none = next(&store, &full, 2, all(None), false);
    assert_eq!((none.root(), none.maps().len()), (None, 0));
    assert!(none.scan(&[]).next().is_none() && none.get(&key(1)).unwrap().is_none());
    let again = next(&store, &none, 3, all(Some(vec![2; 20])), false);
    assert_eq!(again.scan(&[]).count(), full.scan(&[]).count());
}

#[test]
fn large_values_have_nodes_of_their_own() {
    let store = Arc::new(Memory::default());
    let edits: Edits = (0..30)
        .map(|number| (key(number), Some(vec![number.to_le_bytes()[0]; 200_000])))
        .collect();
    let map = next(&store, &empty(&store), 1, edits.clone(), false);
    let expected = edits.into_iter().map(|(key, value)| (key, value.unwrap()));
    check(&map, &expected.collect());
}
