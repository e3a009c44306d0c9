use super::*;

/// Steps, shift, first three sigmas, last two sigmas, and all timesteps of the Wan2.1
/// repository. The table catches these mutations: 1.0 in place of 0.999, the end 0.001 in place
/// of 0, no shift, rounding in place of truncation.
type Row = (usize, f64, [f32; 3], [f32; 2], &'static str);
const REFERENCE: [Row; 7] = [
    (
        50,
        5.0,
        [0.9998, 0.995732, 0.99153],
        [0.172265, 0.092507],
        "999 995 991 987 982 978 973 968 963 957 952 946 940 934 927 920 913 906 898 890 882 873 863 854 843 833 821 809 796 783 768 753 737 720 701 681 660 636 611 584 555 522 487 448 405 356 302 241 172 92",
    ),
    (
        50,
        8.0,
        [0.999875, 0.997328, 0.99469],
        [0.249805, 0.140228],
        "999 997 994 991 989 986 983 979 976 973 969 965 961 957 953 948 944 939 934 928 922 916 910 903 896 888 880 871 862 852 841 830 817 804 789 773 756 737 716 692 666 636 603 565 521 470 409 337 249 140",
    ),
    (
        50,
        3.0,
        [0.999666, 0.992907, 0.985963],
        [0.111008, 0.057637],
        "999 992 985 978 971 963 956 948 939 931 922 913 904 894 884 874 864 853 841 829 817 805 792 778 764 749 734 718 701 684 666 647 627 606 585 562 538 512 486 458 428 396 363 327 290 249 206 160 111 57",
    ),
    (
        30,
        5.0,
        [0.9998, 0.992946, 0.985707],
        [0.26295, 0.146929],
        "999 992 985 978 969 961 952 942 931 920 908 895 882 867 850 833 813 792 768 742 713 681 644 603 555 499 434 356 262 146",
    ),
    (
        30,
        8.0,
        [0.999875, 0.99558, 0.991019],
        [0.363388, 0.216041],
        "999 995 991 986 980 975 969 963 956 948 941 932 922 912 901 888 874 859 841 822 799 773 743 708 666 615 551 470 363 216",
    ),
    (
        20,
        5.0,
        [0.9998, 0.989377, 0.978048],
        [0.356888, 0.20816],
        "999 989 978 965 952 937 920 902 882 859 833 803 768 728 681 624 555 468 356 208",
    ),
    (
        20,
        8.0,
        [0.999875, 0.993334, 0.986166],
        [0.470311, 0.296077],
        "999 993 986 978 969 959 948 936 922 907 888 867 841 811 773 727 666 585 470 296",
    ),
];

#[test]
fn reference_grid_equals_the_published_tables() {
    for (steps, shift, first, last, timesteps) in REFERENCE {
        let schedule = Schedule::new(Grid::Reference, steps, shift).unwrap();
        let expected: Vec<f32> = timesteps.split(' ').map(|t| t.parse().unwrap()).collect();
        assert_eq!(schedule.timesteps(), expected, "{steps} steps, shift {shift}");
        let sigmas = schedule.sigmas();
        assert_eq!((sigmas.len(), sigmas[steps]), (steps + 1, 0.0));
        for (sigma, expected) in sigmas[..3].iter().zip(first).chain(sigmas[steps - 2..steps].iter().zip(last)) {
            assert!((sigma - expected).abs() < 1.1e-6, "{steps} steps, shift {shift}: {sigma} {expected}");
        }
    }
}

#[test]
fn diffusers_grid_starts_just_below_one() {
    let schedule = Schedule::new(Grid::Diffusers, 50, 5.0).unwrap();
    assert_eq!(schedule.timesteps()[..3], [999.0, 995.0, 991.0]);
    assert_eq!(schedule.timesteps()[47..], [244.0, 175.0, 96.0]);
    assert_eq!(schedule.sigmas()[0], 0.999_999);
}

#[test]
fn every_length_is_strictly_falling() {
    for grid in [Grid::Diffusers, Grid::Reference, Grid::FlowMatchEuler] {
        for steps in 1..=MOST_STEPS {
            let schedule = Schedule::new(grid, steps, 5.0).unwrap();
            assert_eq!(schedule.num_inference_steps(), steps);
            assert!(schedule.timesteps().iter().all(|t| (0.0..=1000.0).contains(t)));
        }
    }
}

#[test]
fn bad_requests_are_errors() {
    for steps in [0, MOST_STEPS + 1, usize::MAX] {
        assert_eq!(Schedule::new(Grid::Diffusers, steps, 5.0), Err(Error::Steps(steps)));
    }
    for shift in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        assert!(matches!(Schedule::new(Grid::Diffusers, 5, shift), Err(Error::Shift(_))));
    }
    for shift in [1e-320, 1e-60, 1e9, 1e30, f64::MAX] {
        for grid in [Grid::Diffusers, Grid::Reference, Grid::FlowMatchEuler] {
            assert!(matches!(Schedule::new(grid, 5, shift), Err(Error::Degenerate { .. })), "{grid:?} {shift}");
        }
    }
    assert!(Schedule::new(Grid::Diffusers, 5, 5.0).unwrap().interval(5).is_err());
}
