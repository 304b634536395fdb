use super::{super::parse, *};
use serde_json::json;

const ONE_ROUND: Options = Options { rounds: 1, sample: Duration::from_micros(1) };

/// Returns the low byte of its storage slot 1: `PUSH1 1, SLOAD, PUSH0, MSTORE, PUSH1 1, PUSH1 31, RETURN`.
const CODE: &str = "6001545f526001601ff3";

/// Three pushes, a cold slot, `PUSH0`, `MSTORE` of a first word.
const GAS: u64 = 3 * 3 + 2100 + 2 + 6;

fn case(expected: &serde_json::Value) -> Case {
    let mut row = json!({
        "name": "slot", "group": "own", "code_hex": CODE, "calldata_hex": "", "storage": {"01": "2a"},
        "expected_status": "Return", "expected_return_hex": "2a", "gas_used": GAS, "spec": "Prague",
    });
    for (field, value) in expected.as_object().unwrap() {
        row[field] = value.clone();
    }
    parse(&json!([row]).to_string()).unwrap().remove(0)
}

fn row(group: &str, fused: f64, plain: f64) -> Row {
    Row {
        name: String::new(),
        group: group.to_owned(),
        fused_vs_revm: fused,
        plain_vs_revm: plain,
        cold_vs_revm: 1.0,
        dispatch_fraction: 1.0,
        gas_equal: true,
        output_equal: true,
        revm_us: 1.0,
        analysis_us: 1.0,
        min_fused_vs_revm: 1.0,
        differences: Vec::new(),
    }
}

fn close(mean: Option<f64>, expected: f64) -> bool {
    (mean.unwrap() - expected).abs() < 1e-12
}

#[test]
fn every_execution_begins_on_the_same_state_with_cold_slots() {
    let case = case(&json!({}));
    let measured = measure(&case, &ONE_ROUND).unwrap();
    assert!(measured.is_correct(), "{:?}", measured.differences);
    let mut machine = Machine::revm(&case);
    for _ in 0..3 {
        assert_eq!(machine.execute().unwrap().gas_used, GAS);
    }
}

#[test]
fn wrong_expectations_are_told_apart() {
    let gas = measure(&case(&json!({"gas_used": 1})), &ONE_ROUND).unwrap();
    assert!(!gas.gas_equal && gas.output_equal);
    assert!(gas.differences.contains(&format!("revm: gas {GAS}, expected 1")), "{:?}", gas.differences);

    let output = measure(&case(&json!({"expected_return_hex": "2b"})), &ONE_ROUND).unwrap();
    assert!(output.gas_equal && !output.output_equal);

    let status = measure(&case(&json!({"expected_status": "Stop"})), &ONE_ROUND).unwrap();
    assert!(status.gas_equal && !status.output_equal);
}

#[test]
fn opcodes_and_dispatches_are_counted() {
    let counts = dispatch::count(&case(&json!({}))).unwrap();
    assert_eq!(counts.opcodes, 7);
    assert!(0 < counts.dispatches && counts.dispatches < counts.opcodes, "{counts:?}");
    assert_eq!(dispatch::Counts { opcodes: 8, dispatches: 2 }.fraction(), 0.25);
}

#[test]
fn the_means_are_over_the_evm_bench_groups_without_micro_benchmarks() {
    let summary = Summary::new(vec![
        row("evm-bench", 0.5, 1.0),
        row("evm-bench-cancun", 0.5, 1.0),
        row("evm-benchmarks/main", 0.25, 8.0),
        row("evm-benchmarks/micro", 0.125, 9.0),
        row("own", 0.5, 9.0),
    ]);
    assert!(close(summary.geomean_fused_vs_revm, 2.0_f64.powf(-4.0 / 3.0)));
    assert!(close(summary.geomean_plain_vs_revm, 2.0));
    assert!(close(summary.geomean_all_fused_vs_revm, 2.0_f64.powf(-8.0 / 5.0)));
}

#[test]
fn without_those_groups_the_means_are_over_all_but_micro_benchmarks() {
    let summary = Summary::new(vec![row("mine", 0.5, 1.0), row("mine/micro", 9.0, 9.0)]);
    assert!(close(summary.geomean_fused_vs_revm, 0.5) && close(summary.geomean_plain_vs_revm, 1.0));
    assert_eq!(Summary::new(vec![row("micro", 9.0, 9.0)]).geomean_fused_vs_revm, None);
}
