use super::*;
use crate::ops::testing::*;

/// CPU twin, in f64.
fn change_cpu(a: &[f32], b: &[f32]) -> [f32; 2] {
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
    [difference as f32, b.iter().map(|b| f64::from(b.abs())).sum::<f64>() as f32]
}

fn change(cx: &mut Stream, a: &Tensor, b: &Tensor) -> Vec<f32> {
    let changes = Changes::new(cx, 1, a.len()).unwrap();
    changes.measure(cx, 0, a, b).unwrap();
    let sums = changes.sums(cx).unwrap();
    cx.read(&sums).unwrap()
}

fn check(cx: &mut Stream, count: usize) {
    let (a, a_values) = random_tensor(cx, 1, &[count]);
    let (b, b_values) = random_tensor(cx, 2, &[count]);
    let got = change(cx, &a, &b);
    assert_close(&got, &change_cpu(&a_values, &b_values), 1e-6, &format!("{count} elements"));
    assert_eq!(change(cx, &a, &b), got, "{count} elements, again");
    if !count.is_multiple_of(4) {
        return;
    }
    let (delta, before) = random_tensor(cx, 3, &[count]);
    let changes = Changes::new(cx, 1, count).unwrap();
    changes.measure_delta(cx, 0, &delta, &a, &b).unwrap();
    let want: Vec<f32> = a_values.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(cx.read(&delta).unwrap(), want, "{count} elements");
    let sums = changes.sums(cx).unwrap();
    let what = format!("a delta of {count} elements");
    assert_close(&cx.read(&sums).unwrap(), &change_cpu(&want, &b_values), 1e-6, &what);
}

#[test]
fn change_agrees_with_the_twin_on_both_tiers() {
    for open in [gpu, base_gpu] {
        let (gpu, _turn) = open();
        let mut cx = stream(&gpu);
        for count in [1, 3, 4, 257, 4096, 4097, 50_003, 50_004, 1_000_001] {
            check(&mut cx, count);
        }
    }
}

/// Bindings of 64 KiB: many dispatches, each of which continues the parts of the one before.
#[test]
fn change_is_split_at_the_limits() {
    let (_, _turn) = gpu();
    let mut cx = stream(&narrow_gpu(65_536));
    check(&mut cx, 100_003);
    check(&mut cx, 100_004);
    check(&mut cx, 65_536);
}

/// More than 65,535 workgroups are folded over two dimensions. Few devices have bindings that
/// large, so the test folds six workgroups.
#[test]
fn folded_workgroups_sum_the_right_parts() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let count = 4 * PART + 17;
    let (a, a_values) = random_tensor(&mut cx, 1, &[count]);
    let (b, b_values) = random_tensor(&mut cx, 2, &[count]);
    let pairs = cx.empty("pairs", &[5, 2], ElementType::F32).unwrap();
    let params = ChangeParams { count: count as u32, ..Default::default() };
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("change"),
        arguments: &Change { params, a: &a, b: &b, pairs: &pairs, delta: None },
        groups: [2, 3, 1],
        flops: 1.0,
    })
    .unwrap();
    let parts = a_values.chunks(PART).zip(b_values.chunks(PART));
    let want: Vec<f32> = parts.flat_map(|(a, b)| change_cpu(a, b)).collect();
    assert_close(&cx.read(&pairs).unwrap(), &want, 1e-6, "folded");
}

#[test]
fn changes_of_many_tensors_share_one_result() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    // Tensors of two parts.
    let shape = [37, 148];
    let changes = Changes::new(&mut cx, 5, 37 * 148).unwrap();
    let mut want = Vec::new();
    for slot in [3, 0, 4] {
        let (a, a_values) = random_tensor(&mut cx, slot as u64, &shape);
        let (b, b_values) = random_tensor(&mut cx, 9, &shape);
        changes.measure(&mut cx, slot, &a, &b).unwrap();
        want.push((slot, change_cpu(&a_values, &b_values)));
    }
    let sums = changes.sums(&mut cx).unwrap();
    assert_eq!(sums.shape(), [5, 2]);
    let sums = cx.read(&sums).unwrap();
    for (slot, want) in want {
        assert_close(&sums[2 * slot..][..2], &want, 1e-6, &format!("slot {slot}"));
    }
}

/// Every slot has more than 32 parts, so that it is padded to 64.
#[test]
fn long_deltas_have_their_own_slots() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let count = 140_000;
    let changes = Changes::new(&mut cx, 2, count).unwrap();
    let mut want = Vec::new();
    for slot in [0, 1] {
        let (delta, before) = random_tensor(&mut cx, slot, &[count]);
        let (after, after_values) = random_tensor(&mut cx, slot + 2, &[count]);
        let (old, old_values) = random_tensor(&mut cx, slot + 4, &[count]);
        changes.measure_delta(&mut cx, slot as usize, &delta, &after, &old).unwrap();
        let deltas: Vec<f32> = after_values.iter().zip(&before).map(|(after, before)| after - before).collect();
        want.extend(change_cpu(&deltas, &old_values));
    }
    let sums = changes.sums(&mut cx).unwrap();
    assert_close(&cx.read(&sums).unwrap(), &want, 1e-6, "long deltas");
}

#[test]
fn wrong_shapes_are_refused_and_nan_is_not_hidden() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    assert!(Changes::new(&mut cx, 1, 0).is_err() && Changes::new(&mut cx, 0, 8).is_err());
    let changes = Changes::new(&mut cx, 3, 8).unwrap();
    let mut tensor = |len: usize| cx.zeros("zeros", &[len], ElementType::F32).unwrap();
    let (a, b, short) = (tensor(8), tensor(8), tensor(4));
    for (x, y, slot) in [(&a, &short, 0), (&short, &a, 0), (&a, &b, 3)] {
        assert!(matches!(changes.measure(&mut cx, slot, x, y), Err(GpuError::Shape { .. })), "{slot}");
    }
    for (before, old) in [(&short, &b), (&a, &b), (&b, &b)] {
        assert!(matches!(changes.measure_delta(&mut cx, 0, before, &a, old), Err(GpuError::Shape { .. })));
    }
    let ragged = Changes::new(&mut cx, 1, 3).unwrap();
    let mut three = || cx.zeros("zeros", &[3], ElementType::F32).unwrap();
    let (x, y, z) = (three(), three(), three());
    assert!(ragged.measure_delta(&mut cx, 0, &x, &y, &z).is_err());
    let nan = cx.upload("nan", &[1.0, f32::NAN, 0.0], &[3]).unwrap();
    assert!(change(&mut cx, &nan, &nan).iter().all(|x| x.is_nan()));
}
