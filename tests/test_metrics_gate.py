"""The gate: how often it errs, the error of a difference to a baseline, how many images decide, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import stdtrit

from metrics.budget_gate.budgets import Budgets, from_flags, from_mapping
from metrics.budget_gate.gate import gate, worst_first
from metrics.comparison.gap_report import GapReport, Kept, Resampled, Row, SetSummary, Slice
from metrics.errors import InputError
from metrics.report import from_json, to_json
from metrics.statistics.jackknife import interval, jackknife
from metrics.statistics.kid import kid
from metrics.statistics.measurement import Measurement

KID, FID = "kid@efficientnet-lite0", "fid@efficientnet-lite0"
EXTRACTOR = {"name": "efficientnet-lite0", "fingerprint": "9f3c"}


def measured(value, se=None, dof=1e9, name=KID, n=400, m=300):
    half = None if se is None else float(stdtrit(dof, 0.975)) * se
    low, high = (None, None) if half is None else (value - half, value + half)
    return Measurement(name, value, se, low, high, n, m)


def report(*measurements, **fields):
    row = Row("after", SetSummary("syn", 400, 400), measurements)
    reference = SetSummary("real", 300, 300, (), "digest of real")
    return replace(GapReport(reference, (row,), (), EXTRACTOR, {"real": "photos/judge"}), **fields)


def from_features(x, y, *, groups=None):
    """A report of KID as ``compare`` writes it, leave-one-out values included."""
    found = kid(x, y, groups_x=groups)
    low, high = interval(found.value, found.error)
    entry = Measurement(KID, found.value, found.se, low, high, found.n, found.m)
    resampled = Resampled(KID, tuple(found.loo_x.tolist()), tuple(found.loo_y.tolist()))
    made = report(entry, resampled=(resampled,))
    row = replace(made.rows[0], set=replace(made.rows[0].set, images=len(x), groups=len(found.loo_x)))
    return replace(made, rows=(row,), reference=replace(made.reference, images=len(y), groups=len(y)))


def budgets(confidence=0.95, **flags):
    return Budgets(from_flags(**flags), confidence)


def at_most(limit, confidence=0.95):
    return budgets(confidence, maximum=[f"kid={float(limit)!r}"])


def only(result):
    (check,) = result.checks
    return check


# Verdicts


@pytest.mark.parametrize(
    ("flags", "verdict", "code"),
    [
        ({"maximum": ["kid=0.0417"]}, "pass", 0),  # upper bound 0.04 + h + h²/0.16 = 0.041662, h = 1.6449 · 0.001
        ({"maximum": ["kid=0.0416"]}, "inconclusive", 3),
        ({"maximum": ["kid=0.0384"]}, "inconclusive", 3),
        ({"maximum": ["kid=0.0383"]}, "fail", 1),
        ({"minimum": ["kid=0.0383"]}, "pass", 0),
        ({"minimum": ["kid=0.0384"]}, "inconclusive", 3),
        ({"minimum": ["kid=0.0417"]}, "fail", 1),
        ({"maximum": ["kid=0.05", "kid=0.03"]}, "fail", 1),
        ({"maximum": ["kid=0.05", "kid=0.04"]}, "inconclusive", 3),
        ({"maximum": ["kid=0.04", "kid=0.03"]}, "fail", 1),
    ],
)
def test_three_verdicts_by_one_sided_bounds(flags, verdict, code):
    result = gate(report(measured(0.04, 0.001)), budgets(**flags))
    assert (result.verdict, result.exit_code) == (verdict, code)


def test_bounds_are_students_with_the_reports_own_degrees_of_freedom():
    half = 0.001 * stdtrit(3.7, 0.9)
    check = only(gate(report(measured(0.04, 0.001, dof=3.7, name=FID)), budgets(0.9, maximum=["fid=0.05"])))
    assert check.bound == check.high == pytest.approx(0.04 + half, rel=1e-9)
    assert check.low == pytest.approx(0.04 - half, rel=1e-9)
    check = only(gate(report(measured(0.04, 0.001, dof=3.7)), at_most(0.05, 0.9)))
    root = math.sqrt(0.04)  # a squared distance: on the scale of its root
    assert check.high == pytest.approx((root + half / (2 * root)) ** 2, rel=1e-9)
    assert check.low == pytest.approx((root - half / (2 * root)) ** 2, rel=1e-9)
    for value in (-0.001, 0.0, 1e-6):  # no gap: the root means nothing
        check = only(gate(report(measured(value, 0.001, dof=3.7)), at_most(0.05, 0.9)))
        assert (check.low, check.high) == pytest.approx((value - 0.75 * half, value + 1.25 * half), rel=1e-9)
    assert only(gate(report(measured(0.04, 0.0)), at_most(0.04))).verdict == "pass"


def test_every_place_of_the_report_can_be_bounded():
    half = 0.02 * stdtrit(99, 0.975)
    kept = Kept("label-probe@efficientnet-lite0", 0.97, 0.02, 0.97 - half, 0.97 + half, 100)
    made = report(
        measured(0.04, 0.001),
        closed=(measured(0.41, 0.03),),
        change=(measured(-0.02, 0.001),),
        kept=(kept,),
        slices=(Slice("cats", "all", measured(0.05, 0.001)), Slice("dogs", "all", measured(0.03, 0.001))),
    )
    flags = {"maximum": ["change.kid=0", "slices.kid=0.045"], "minimum": ["closed.kid=0.3", "kept.label-probe=0.95"]}
    verdicts = {check.name: check.verdict for check in gate(made, budgets(**flags)).checks}
    assert verdicts == {
        f"change.{KID}": "pass",
        f"slices.{KID}: cats": "fail",
        f"slices.{KID}: dogs": "pass",
        f"closed.{KID}": "pass",
        "kept.label-probe@efficientnet-lite0": "inconclusive",
    }


def test_a_slice_fails_only_beyond_the_bound_of_all_slices():
    parts = tuple(Slice(str(i), "all", measured(0.04 + 0.002 * (i == 0), 0.001)) for i in range(10))
    alone = gate(report(measured(0.04, 0.001), slices=parts[:1]), budgets(maximum=["slices.kid=0.04"]))
    assert only(alone).verdict == "fail"  # two standard errors above
    among = gate(report(measured(0.04, 0.001), slices=parts), budgets(maximum=["slices.kid=0.04"]))
    assert among.checks[0].verdict == "inconclusive"  # 2.58 are needed among ten
    assert among.verdict == "inconclusive"


def test_a_set_that_cannot_be_read_never_passes():
    skipped = tuple((str(index), "damaged") for index in range(40))
    broken = report(measured(0.01, 0.001))
    row = replace(broken.rows[0], set=SetSummary("syn", 60, 60, skipped))
    result = gate(replace(broken, rows=(row,)), at_most(0.05))
    assert (result.verdict, result.exit_code) == ("fail", 1)
    assert "40 of 100 images under test could not be read" in result.checks[-1].sentence
    few = replace(row, set=SetSummary("syn", 399, 399, skipped[:1]))
    assert gate(replace(broken, rows=(few,)), at_most(0.05)).verdict == "pass"


def test_a_slice_of_too_few_images_is_inconclusive():
    part = Slice("rare", "all", Measurement(KID, math.nan, None, None, None, 3, 0))
    check = only(gate(report(measured(0.04, 0.001), slices=(part,)), budgets(maximum=["slices.kid=1"])))
    assert check.verdict == "inconclusive" and "rare has too few images (3) to be measured" in check.sentence


@pytest.mark.parametrize("se", [None, 0.001])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("value_only", [True, False])
@pytest.mark.parametrize("side", ["max", "min"])
def test_what_is_not_finite_fails(value, se, value_only, side):
    wanted = from_mapping({"after": {"kid": {side: 0.0, "value_only": value_only}}})
    result = gate(report(Measurement(KID, value, se, value, value, 4, 4)), wanted)
    assert (result.verdict, result.exit_code) == ("fail", 1)
    assert "could not be measured" in only(result).sentence


@pytest.mark.parametrize("se", [math.nan, math.inf, -0.001])
def test_an_error_bar_that_is_none_never_decides(se):
    for made in (Measurement(KID, 0.04, se, 0.03, 0.05, 4, 4), Measurement(KID, 0.04, 0.5, 0.03999, 0.04001, 4, 4)):
        assert only(gate(report(made), at_most(1.0))).verdict == "inconclusive"


def test_nan_in_the_file_reads_as_not_measured():
    text = to_json(report(measured(0.04, 0.001))).replace('"value": 0.04', '"value": null')
    assert gate(from_json(text), at_most(1.0)).verdict == "fail"


def test_without_an_error_bar_only_on_request():
    made = report(measured(40.0, name=FID))
    refused = only(gate(made, budgets(maximum=["fid=60"])))
    assert refused.verdict == "inconclusive" and "no error bar" in refused.sentence
    assert "value_only = true (--value-only NAME)" in refused.sentence and refused.more_images is None
    for limit, verdict in ((60, "pass"), (40, "pass"), (39, "fail")):
        accepted = from_mapping({"after": {"fid": {"max": limit, "value_only": True}}})
        assert only(gate(made, accepted)).verdict == verdict


def test_sentences_and_headline():
    result = gate(report(measured(0.04, 0.001)), budgets(maximum=["kid=0.05", "kid=0.03", "kid=0.0401"]))
    assert result.headline == "FAIL: of 3 checks, 1 failed, 1 inconclusive, 1 passed."
    passed, failed, undecided = (check.sentence for check in result.checks)
    bare = f"{KID} is 0.04 ± 0.001; "
    assert passed == f"{bare}the upper 0.04166 bound at 95 % is within the budget, at most 0.05."
    assert failed == f"{bare}even the lower 0.03837 bound at 95 % is beyond the budget, at most 0.03."
    assert undecided.startswith(f"{bare}its bounds at 95 %, 0.03837 and 0.04166, enclose the budget, at most 0.0401. ")
    assert [check.verdict for check in worst_first(result.checks)] == ["fail", "inconclusive", "pass"]


# Error rates


@pytest.mark.parametrize(("dof", "confidence"), [(4, 0.95), (30, 0.95), (1e9, 0.8)])
def test_wrong_verdicts_are_as_rare_as_stated(dof, confidence):
    """On the budget's edge, a pass (were it just beyond) and a fail (just within) have probability 1 − confidence."""
    rng, trials = np.random.default_rng(5), 3000
    wanted = budgets(confidence, maximum=["fid=0.04"])
    values = 0.04 + 0.001 * rng.standard_normal(trials)
    errors = 0.001 * (np.sqrt(rng.chisquare(dof, trials) / dof) if dof < 1e6 else np.ones(trials))
    verdicts = [
        only(gate(report(measured(v, s, dof, FID)), wanted)).verdict for v, s in zip(values, errors, strict=True)
    ]
    sd = math.sqrt(confidence * (1 - confidence) / trials)
    for verdict in ("pass", "fail"):
        assert verdicts.count(verdict) / trials == pytest.approx(1 - confidence, abs=4 * sd)


def mean_kernel(a, b):
    """E (1 + x·y/d)³ of x ~ N(a, 1) and y ~ N(b, 1), independent, from the moments of x·y."""
    d, m, aa, bb = len(a), a @ b, a @ a, b @ b
    third = m**3 + 3 * m * bb + 3 * m * (d + aa + 2)
    return 1 + 3 * m / d + 3 * (m * m + aa + bb + d) / d**2 + third / d**3


def test_error_rates_with_kid_itself():
    """At the true KID of shifted Gaussians, where plain Student bounds let 8 % pass and 2 % fail."""
    rng, trials, shift = np.random.default_rng(0), 600, np.full(8, 0.25)
    zero = 0 * shift
    truth = mean_kernel(shift, shift) + mean_kernel(zero, zero) - 2 * mean_kernel(shift, zero)

    def draw(mean):
        return torch.from_numpy(rng.standard_normal((60, 8)) + mean)

    verdicts = [gate(from_features(draw(shift), draw(zero)), at_most(truth)).verdict for _ in range(trials)]
    noise = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert verdicts.count("pass") / trials <= 0.05 + noise
    assert verdicts.count("fail") / trials <= 0.05 + noise


# Relative to a baseline


def sets(seed, n=80, d=16):
    """Two candidates and the reference they share."""
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.standard_normal((n, d)) + mean) for mean in (0.35, 0.3, 0.0))


def difference(new, old, limit=0.0):
    return only(gate(new, budgets(max_increase=[f"kid={float(limit)!r}"]), baseline=old))


def test_paired_error_is_the_true_error_of_the_difference():
    """Over redraws of all three sets, the mean standard error against the spread of the differences."""
    differences, errors, unpaired = [], [], []
    for seed in range(150):
        new, old, real = sets(seed)
        a, b = from_features(new, real), from_features(old, real)
        check = difference(a, b)
        differences.append(check.value)
        errors.append(check.se)
        unpaired.append(math.hypot(a.rows[0].measurements[0].se, b.rows[0].measurements[0].se))
    ratio = math.sqrt(np.mean(np.square(errors))) / np.std(differences, ddof=1)
    assert 0.8 <= ratio <= 1.6
    assert np.mean(errors) < 0.9 * np.mean(unpaired)


def test_difference_by_hand():
    new, old, real = sets(1)
    a, b = kid(new, real), kid(old, real)
    check = difference(from_features(new, real), from_features(old, real))
    error = jackknife(a.loo_y - b.loo_y, a.loo_x, b.loo_x)
    assert check.value == a.value - b.value and check.se == pytest.approx(error.se, rel=1e-12)
    assert check.high == pytest.approx(check.value + stdtrit(error.dof, 0.95) * error.se, rel=1e-12)
    assert check.name == f"baseline.{KID}"


def test_the_same_set_again_passes_any_budget():
    new, _, real = sets(1)
    again = from_features(new, real)
    check = difference(again, again)
    assert (check.value, check.se, check.verdict) == (0.0, 0.0, "pass")


def test_max_decrease_is_the_mirror_of_max_increase():
    new, old, real = sets(1)
    a, b = from_features(new, real), from_features(old, real)
    up = difference(a, b, 0.001)
    down = only(gate(b, budgets(max_decrease=["kid=0.001"]), baseline=a))
    assert (down.value, down.bound, down.verdict) == (-up.value, -up.bound, up.verdict)


def test_value_only_decides_a_difference_without_leave_one_out_values():
    wanted = from_mapping({"baseline": {"fid": {"max_increase": 1.0, "value_only": True}}})
    for value, verdict in ((40.5, "pass"), (41.5, "fail")):
        new, old = report(measured(value, name=FID)), report(measured(40.0, name=FID))
        assert gate(new, wanted, baseline=old).verdict == verdict
    bare = gate(new, budgets(max_increase=["fid=1"]), baseline=old)
    assert bare.verdict == "inconclusive" and "no leave-one-out values" in only(bare).sentence


def test_reports_that_cannot_be_compared_are_refused():
    new, old, real = sets(1)
    a, b = from_features(new, real), from_features(old, real)
    again = "domain-gap compare SET photos/judge -o REPORT"
    cases = [
        (a, replace(b, reference=replace(b.reference, digest="other", root="photos/other")), "photos/other hold other"),
        (a, replace(b, extractor={"name": "dinov2", "fingerprint": "77aa"}), "dinov2, fingerprint 77aa"),
        (
            replace(a, reference=replace(a.reference, digest="")),
            replace(b, reference=replace(b.reference, digest="")),
            "",
        ),
        (replace(a, extractor={}), replace(b, extractor={}), "different extractors"),
    ]
    for report_new, report_old, message in cases:
        with pytest.raises(InputError) as refused:
            difference(report_new, report_old)
        assert message in str(refused.value) and again in str(refused.value)
    short = replace(b, resampled=(replace(b.resampled[0], reference=b.resampled[0].reference[1:]),))
    with pytest.raises(InputError, match="different numbers of its groups"):
        difference(a, short)
    with pytest.raises(InputError, match=r"needs the report to compare with: --baseline old/report\.json"):
        gate(a, budgets(max_increase=["kid=0"]))
    with pytest.raises(InputError, match="no budget compares with it"):
        gate(a, at_most(1.0), baseline=b)


# How many more images


def test_more_images_of_the_set_decide_in_four_of_five_cases():
    """At the stated size of the set, redraws around the value seen are decided at the stated rate."""
    rng = np.random.default_rng(3)

    def draw(n, mean):
        return torch.from_numpy(rng.standard_normal((n, 8)) + mean)

    real = draw(600, 0.0)
    true = np.mean([kid(draw(500, 0.3), real).value for _ in range(30)])
    limit = 1.35 * true
    seen = from_features(draw(60, 0.3), real)
    moved = replace(seen.rows[0].measurements[0], value=true)
    shift = true - seen.rows[0].measurements[0].value
    moved = replace(moved, low=moved.low + shift, high=moved.high + shift)
    seen = replace(seen, rows=(replace(seen.rows[0], measurements=(moved,)),))
    check = only(gate(seen, at_most(limit)))
    assert check.verdict == "inconclusive" and check.more_reals == 0 and 20 < check.more_images < 1200
    assert f"About {check.more_images:,} more images of the set would decide it" in check.sentence
    n = 60 + check.more_images
    rate = np.mean([only(gate(from_features(draw(n, 0.3), real), at_most(limit))).verdict == "pass" for _ in range(60)])
    assert 0.6 <= rate <= 1.0
    few = np.mean([only(gate(from_features(draw(60, 0.3), real), at_most(limit))).verdict == "pass" for _ in range(60)])
    assert few < rate - 0.2


def parts(value, own, reference, limit, n=100, m=50):
    """The check of a value whose variance is ``own`` + ``reference``, each a jackknife of n and of m values."""

    def spread(size, variance):
        loo = np.arange(size, dtype=float)
        return tuple((loo - loo.mean()) * math.sqrt(variance / ((size - 1) * loo.var())))

    entry = measured(value, math.sqrt(own + reference), n=n, m=m)
    made = report(entry, resampled=(Resampled(KID, spread(n, own), spread(m, reference)),))
    made = replace(made, reference=replace(made.reference, images=m, groups=m))
    return only(gate(made, at_most(limit)))


NEEDED = (stdtrit(1e9, 0.95) + 0.8416212335729143) ** 2  # distance² / variance for a power of 80 %


def test_more_images_in_closed_form():
    own, reference, away = 4.0, 1.0, 3.5
    check = parts(10.0, own, reference, 10.0 + away)
    assert check.verdict == "inconclusive"
    expected = own / (away**2 / NEEDED - reference) * 100 - 100
    assert (check.more_images, check.more_reals) == (math.ceil(expected), 0)


def test_more_real_photos_where_the_reference_alone_is_too_noisy():
    check = parts(10.0, 0.5, 4.0, 13.0)
    expected = 4.0 / (9 / NEEDED - 0.5) * 50 - 50
    assert (check.more_images, check.more_reals) == (0, math.ceil(expected))
    assert (
        "the reference is too small" in check.sentence
        and f"about {check.more_reals} more real photos" in check.sentence
    )


def test_more_of_both_or_of_nothing():
    both = parts(10.0, 2.0, 2.0, 11.5)
    factor = 4.0 / (1.5**2 / NEEDED)
    assert (both.more_images, both.more_reals) == (math.ceil(100 * (factor - 1)), math.ceil(50 * (factor - 1)))
    assert "more images of the set and" in both.sentence
    for limit in (10.0, 10.0 + 1e-9):
        never = parts(10.0, 2.0, 2.0, limit)
        assert never.more_images is never.more_reals is None and "No practical number" in never.sentence


def test_more_images_of_a_mean_over_images():
    kept = Kept("edge-f-score", 0.9, 0.02, 0.9 - 0.02 * stdtrit(99, 0.975), 0.9 + 0.02 * stdtrit(99, 0.975), 100)
    check = only(gate(report(kept=(kept,)), budgets(minimum=["kept.edge-f-score=0.87"])))
    factor = (0.02 / 0.03 * (stdtrit(99, 0.95) + 0.8416212335729143)) ** 2
    assert (check.more_images, check.more_reals) == (math.ceil(100 * (factor - 1)), 0)


# What is refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"maximum": ["kdi=1"]}, "unknown metric 'kdi'. Did you mean 'kid'"),
        ({"maximum": ["kept.label-prob=1"]}, "unknown metric 'label-prob'. Did you mean 'label-probe'"),
        ({"maximum": ["energy=1"]}, "holds no energy of the set under test, only kid@efficientnet-lite0"),
        ({"maximum": ["energy=1"]}, "domain-gap compare ... --metric kid,energy"),
        ({"maximum": ["kid@dinov2=1"]}, "--metric kid --extractor dinov2"),
        ({"minimum": ["closed.kid=1"]}, "--metric kid --before RAW"),
        ({"maximum": ["change.kid=1"]}, "holds no kid of [change], only nothing"),
        ({"minimum": ["kept.edge-f-score=1"]}, "--before RAW"),
        ({"minimum": ["kept.label-probe=1"]}, "one folder per class"),
        ({"maximum": ["slices.kid=1"]}, "holds no kid of [slices], only nothing. Make it again with"),
        ({"maximum": ["slices.kid=1"]}, "--slice label"),
        ({"maximum": ["slices.fid=1"]}, "slices are measured by kid alone"),
        ({"maximum": ["change.c2st=1"]}, "c2st is no distance, so no change is measured"),
        ({"minimum": ["closed.precision=1"]}, "precision is no distance"),
    ],
)
def test_a_metric_that_is_not_there_says_how_to_get_it(flags, message):
    with pytest.raises(InputError) as refused:
        gate(report(measured(0.04, 0.001)), budgets(**flags))
    assert message in str(refused.value)


def test_several_of_one_kind_must_be_named_in_full():
    two = report(measured(0.04, 0.001), measured(0.05, 0.001, name="kid@dinov2"))
    with pytest.raises(InputError, match='name one: "kid@efficientnet-lite0" or "kid@dinov2"'):
        gate(two, at_most(1.0))
    assert only(gate(two, budgets(maximum=["kid@dinov2=1"]))).value == 0.05


def test_a_report_without_a_set_under_test_is_refused():
    with pytest.raises(InputError, match="only nothing"):
        gate(GapReport(SetSummary("real", 3, 3), (), (), EXTRACTOR, {}), at_most(1.0))
