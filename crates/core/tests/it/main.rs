//! What must not compile: the invariant in the types.

#[test]
fn an_irreversible_permit_cannot_be_built_without_a_proof() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/it/refused/*.rs");
}
