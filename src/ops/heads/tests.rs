use super::*;
use crate::gpu::StreamOptions;
use crate::ops::HostWeight;
use crate::ops::testing::*;

/// The CPU twin: norm and rotation of a block [n, heads * d], in f64, by the formulas.
fn split_twin(block: &[f64], grid: [usize; 3], d: usize, heads: usize, norm: Option<&[f32]>, rope: bool) -> Vec<f64> {
    let dim = heads * d;
    let mut out = block.to_vec();
    for (token, row) in out.chunks_mut(dim).enumerate() {
        if let Some(weight) = norm {
            let mean = row.iter().map(|v| v * v).sum::<f64>() / dim as f64;
            row.iter_mut().zip(weight).for_each(|(v, w)| *v *= f64::from(*w) / (mean + 1e-6).sqrt());
        }
        if rope {
            let position = [token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]];
            for pair in 0..dim / 2 {
                let (third, i) = (d / 6, pair % (d / 2));
                let frames = d / 2 - 2 * third;
                let (axis, k, pairs) = match i {
                    _ if i < frames => (0, i, frames),
                    _ if i < frames + third => (1, i - frames, third),
                    _ => (2, i - frames - third, third),
                };
                let angle = position[axis] as f64 / 10_000f64.powf(2.0 * k as f64 / (2 * pairs) as f64);
                let (a, b) = (row[2 * pair], row[2 * pair + 1]);
                row[2 * pair] = a * angle.cos() - b * angle.sin();
                row[2 * pair + 1] = a * angle.sin() + b * angle.cos();
            }
        }
    }
    out
}

/// A projection by heads, split in parts of so many rows.
fn split_heads(cx: &mut Stream, x: &Tensor, heads: usize, parts: &[HeadsPart], rows: usize) -> Result<Vec<Tensor>> {
    let split = HeadsSplit::new(cx, [x.rows(), x.columns()], heads, parts)?;
    for first in (0..x.rows()).step_by(rows) {
        // A copy, because a part of a projection is a tensor of its own.
        let some = cx.copy_of(&x.slice(first, rows.min(x.rows() - first)))?;
        split.rows(cx, &some, first)?;
    }
    Ok(split.outputs)
}

/// Query, key and value blocks of one projection, with and without norm and rotation.
fn check(cx: &mut Stream, grid: [usize; 3], heads: usize, d: usize) {
    let (n, dim) = (grid.iter().product::<usize>(), heads * d);
    let n4 = n.next_multiple_of(4);
    let (x, values) = random_tensor(cx, 1, &[n, 3 * dim]);
    let (weight, w) = random_tensor(cx, 2, &[dim]);
    let rope = RopeTable::new(cx, grid, d).unwrap();
    let norm = HeadsNorm { weight: &weight, epsilon: 1e-6 };
    let parts = [
        HeadsPart { norm: Some(norm), rope: Some(&rope), transposed: false },
        HeadsPart { norm: Some(norm), rope: Some(&rope), transposed: true },
        HeadsPart::default(),
    ];
    let whole = split_heads(cx, &x, heads, &parts, n).unwrap();
    let in_parts = split_heads(cx, &x, heads, &parts, n.div_ceil(3).next_multiple_of(4)).unwrap();
    for (i, (got, part)) in whole.iter().zip(parts).enumerate() {
        assert_eq!(cx.read(got).unwrap(), cx.read(&in_parts[i]).unwrap(), "rows in parts, part {i}");
        let block: Vec<f64> =
            values.chunks(3 * dim).flat_map(|row| row[i * dim..][..dim].iter().map(|v| f64::from(*v))).collect();
        let norm = part.norm.map(|_| w.as_slice());
        let block = split_twin(&block, grid, d, heads, norm, part.rope.is_some());
        let mut want = vec![0.0; if part.transposed { heads * d * n4 } else { n * dim }];
        for (at, value) in block.iter().enumerate() {
            let (row, head, column) = (at / dim, at % dim / d, at % d);
            let index = if part.transposed { (head * d + column) * n4 + row } else { (head * n + row) * d + column };
            want[index] = *value as f32;
        }
        let what = format!("part {i} of {grid:?} tokens, {heads} heads of {d}");
        assert_close(&cx.read(got).unwrap(), &want, 5e-7, &what);
    }
    // With a single normalised part (as keys of a text), the factors have their own dispatch.
    let pair = HeadsSplit::new(cx, [n, 3 * dim], heads, &parts).unwrap();
    let alone = [parts[0], HeadsPart::default(), HeadsPart::default()];
    let alone = HeadsSplit { parts: &alone, ..pair };
    alone.rows(cx, &x, 0).unwrap();
    assert_eq!(cx.read(&alone.outputs[0]).unwrap(), cx.read(&whole[0]).unwrap(), "factors of one part alone");
}

#[test]
fn heads_agree_with_the_twin() {
    let (full, turn) = gpu();
    drop(turn);
    let (base, _turn) = base_gpu();
    for gpu in [full, base] {
        let mut cx = stream(&gpu);
        for (grid, heads, d) in [([1, 1, 1], 1, 4), ([3, 5, 7], 3, 32), ([2, 3, 50], 2, 128), ([1, 2, 3], 5, 40)] {
            check(&mut cx, grid, heads, d);
        }
    }
}

#[test]
fn heads_and_rows_are_split_at_the_limits() {
    let (_, _turn) = gpu();
    // Four rows of x are 5,760 bytes, the keys of a head 4,160.
    let gpu = narrow_gpu(6_100);
    for budget in [std::time::Duration::ZERO, StreamOptions::default().budget] {
        check(&mut Stream::new(&gpu, StreamOptions::default().with_budget(budget)), [1, 5, 5], 3, 40);
    }
}

/// A projection that exceeds the largest binding is made in parts.
#[test]
fn projections_are_made_in_parts() {
    let (_, _turn) = gpu();
    let ([n, k], heads, d) = ([150, 8], 4, 8);
    let project = |max_binding| {
        let gpu = narrow_gpu(max_binding);
        let mut cx = stream(&gpu);
        let (x, _) = random_tensor(&mut cx, 1, &[n, k]);
        let host = HostWeight::from_f32(&random(2, 3 * heads * d * k));
        let w = Weight::linear(&gpu, "w", &host, [3 * heads * d, k], None).unwrap();
        let (weight, _) = random_tensor(&mut cx, 3, &[heads * d]);
        let rope = RopeTable::new(&mut cx, [6, 5, 5], d).unwrap();
        let norm = HeadsNorm { weight: &weight, epsilon: 1e-6 };
        let normed = HeadsPart { norm: Some(norm), rope: Some(&rope), transposed: false };
        let parts = [normed, HeadsPart { transposed: true, ..normed }, HeadsPart::default()];
        let heads = project_heads(&mut cx, &x, &w, heads, &parts).unwrap();
        heads.iter().map(|part| cx.read(part).unwrap()).collect::<Vec<_>>()
    };
    // The projection takes 57,600 bytes, sixteen rows of it 6,144, and a head of keys 4,864.
    assert_eq!(project(Some(9_216)), project(None));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let x = cx.zeros("x", &[6, 24], ElementType::F32).unwrap();
    let rope = RopeTable::new(&mut cx, [1, 2, 3], 4).unwrap();
    assert_eq!(rope.tokens(), 6);
    split_heads(&mut cx, &x, 2, &[HeadsPart { rope: Some(&rope), ..Default::default() }; 3], 6).unwrap();
    let wrong = [
        (2, vec![HeadsPart::default(); 2]),
        (0, vec![HeadsPart::default()]),
        (2, vec![]),
        (1, vec![HeadsPart { rope: Some(&rope), ..Default::default() }]),
        (1, vec![HeadsPart { norm: Some(HeadsNorm { weight: &x, epsilon: 1e-6 }), ..Default::default() }]),
    ];
    for (heads, parts) in wrong {
        assert!(matches!(split_heads(&mut cx, &x, heads, &parts, 6), Err(GpuError::Shape { .. })), "{heads} {parts:?}");
    }
}
