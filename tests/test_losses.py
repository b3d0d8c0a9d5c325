"""The losses equal the equations worked by hand, and have the properties the method promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intp.losses import ar_logps, flow_matching_error, masked_logps, preference_loss

SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=5)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ar_logps_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4); three counted positions choose 1, 0, 1
    logits = torch.zeros(1, 4, 2, dtype=torch.float64)
    logits[..., 1] = math.log(3)
    labels = torch.tensor([[-100, 1, 0, 1]])
    expected = 2 * math.log(3 / 4) + math.log(1 / 4)
    assert ar_logps(logits, labels).item() == pytest.approx(expected, abs=1e-12)
    assert ar_logps(logits, labels, "mean").item() == pytest.approx(expected / 3, abs=1e-12)


def test_ar_logps_ignores_what_is_not_counted():
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    labels = torch.tensor([[-100, 3, 2, -100, -100], [-100, -100, 1, 6, 0]])
    changed = logits.clone()
    changed[labels == -100] += 10 * torch.randn(int((labels == -100).sum()), 7, dtype=torch.float64)
    assert torch.equal(ar_logps(logits, labels), ar_logps(changed, labels))


def test_flow_matching_error_by_hand():
    velocity = torch.zeros(1, 3, 2, dtype=torch.float64)
    target = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [100.0, 100.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    assert flow_matching_error(velocity, target, mask, "sum").item() == 1 + 4 + 9
    assert flow_matching_error(velocity, target, mask).item() == 14 / 4


def test_masked_logps_count_masked_positions_only():
    logits = torch.zeros(1, 3, 4, dtype=torch.float64)
    logits[0, 1, 2] = math.log(5)
    tokens, mask = torch.tensor([[0, 2, 1]]), torch.tensor([[False, True, True]])
    expected = math.log(5 / 8) + math.log(1 / 4)
    assert masked_logps(logits, tokens, mask).item() == pytest.approx(expected, abs=1e-12)


def test_empty_mask_divides_by_nothing():
    zeros = torch.zeros(1, 3, 2)
    assert flow_matching_error(zeros, zeros + 1, torch.zeros(1, 3).bool()).item() == 0


def test_the_margin_of_cosyvoices_example():
    # FunAudioLLM/CosyVoice issue 1449: the right mean margin is 0.7, the inverted mask gives 0
    policy = (double(-0.5, -0.7, -0.6).mean(), double(-1.5, -1.3, -1.4).mean())
    reference = (double(-0.9, -0.9, -0.9).mean(), double(-1.0, -1.0, -1.0).mean())
    out = preference_loss(
        (policy[0] - reference[0])[None], (policy[1] - reference[1])[None], beta=1.0
    )
    assert out.margin.item() == pytest.approx(0.7)
    assert out.loss.item() == pytest.approx(math.log(1 + math.exp(-0.7)))


@pytest.mark.parametrize(
    ("kind", "smoothing", "expected"),
    [
        ("sigmoid", 0.0, -math.log(1 / (1 + math.exp(-0.2)))),
        (
            "sigmoid", 0.1,
            0.9 * math.log(1 + math.exp(-0.2)) + 0.1 * math.log(1 + math.exp(0.2)),
        ),
        (
            "robust", 0.1,
            (0.9 * math.log(1 + math.exp(-0.2)) - 0.1 * math.log(1 + math.exp(0.2))) / 0.8,
        ),
        ("ipo", 0.0, (2 - 1 / (2 * 0.1)) ** 2),
        ("hinge", 0.0, 0.8),
    ],
)  # fmt: skip
def test_kinds_by_hand(kind: str, smoothing: float, expected: float):
    out = preference_loss(double(3), double(1), beta=0.1, kind=kind, label_smoothing=smoothing)
    assert out.loss.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(SCORES, st.floats(0.01, 10))
def test_swapping_chosen_and_rejected_flips_the_margin(scores: list[float], beta: float):
    w, l = double(*scores), double(*reversed(scores)) - 1
    there, back = preference_loss(w, l, beta=beta), preference_loss(l, w, beta=beta)
    assert torch.equal(there.margin, -back.margin)


@settings(max_examples=20, deadline=None)
@given(SCORES, st.floats(0.01, 10))
def test_policy_equal_to_reference_gives_log_2(scores: list[float], beta: float):
    zeros = torch.zeros(len(scores), dtype=torch.float64)
    out = preference_loss(zeros, zeros, beta=beta)
    assert out.loss.item() == pytest.approx(math.log(2), abs=1e-15)
    assert out.margin.abs().max() == 0


def test_gradient_by_finite_differences():
    w, l = double(0.3, -0.8), double(0.1, 0.4)
    for kind in ("sigmoid", "ipo", "hinge", "robust"):
        smoothing = 0.1 if kind == "robust" else 0.0

        def loss(w, l, kind=kind, smoothing=smoothing):
            return preference_loss(w, l, beta=0.5, kind=kind, label_smoothing=smoothing).loss

        inputs = (w.clone().requires_grad_(), l.clone().requires_grad_())
        assert torch.autograd.gradcheck(loss, inputs)


def squared_gap(chosen_logratio, rejected_logratio, beta):
    return (1 - beta * (chosen_logratio - rejected_logratio)) ** 2


def test_a_loss_of_one_s_own_is_named_by_module_and_function():
    out = preference_loss(double(3), double(1), beta=0.1, kind=f"{__name__}:squared_gap")
    assert out.loss.item() == pytest.approx(0.8**2)
    assert out.margin.item() == pytest.approx(0.2)
    with pytest.raises(AttributeError, match="no_such_loss"):
        preference_loss(double(3), double(1), beta=0.1, kind=f"{__name__}:no_such_loss")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="kind"):
        preference_loss(double(0), double(0), beta=1, kind="dpo")
    with pytest.raises(ValueError, match="label_smoothing"):
        preference_loss(double(0), double(0), beta=1, label_smoothing=0.6)
    with pytest.raises(ValueError, match="reduction"):
        ar_logps(torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), "max")


P = 0.8  # share of people who prefer the first answer


def settle(scores, parameter: torch.Tensor, beta: float) -> float:
    """Train on a preference that holds with probability P; beta times the log-ratio it ends with.

    `scores()` gives the policy's scores [2] of the two answers; the reference is where it begins.
    """
    with torch.no_grad():
        known = scores().clone()
    optimizer = torch.optim.LBFGS(
        [parameter], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        first, second = (scores() - known).split(1)
        loss = P * preference_loss(first, second, beta=beta).loss
        loss = loss + (1 - P) * preference_loss(second, first, beta=beta).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    first, second = (scores() - known).detach()
    return beta * (first - second).item()


@pytest.mark.parametrize("masked", [False, True], ids=["ar", "masked"])
def test_training_goes_where_the_closed_form_says(masked: bool):
    """Eq. 10 (and 14): at the optimum beta * (log-ratio of w - log-ratio of l) = logit p."""
    logits = torch.tensor([0.3, -0.2, 0.1, 0.9], dtype=torch.float64, requires_grad=True)
    answers = torch.tensor([[1], [3]])

    def scores() -> torch.Tensor:
        both = logits.expand(2, 1, 4)
        if masked:
            return masked_logps(both, answers, torch.ones(2, 1, dtype=torch.bool))
        return ar_logps(both, answers)

    found = settle(scores, logits, beta=0.5)
    assert found == pytest.approx(math.log(P / (1 - P)), abs=1e-6)


def test_flow_matching_goes_where_a_line_solved_by_hand_says():
    """A constant velocity v, targets a and b: the log-ratios differ by 2 (a - b)(v - v_ref), so v
    ends at v_ref + logit(p) / (2 beta (a - b))."""
    velocity = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    a, b, beta = 1.5, -0.5, 0.3
    targets = torch.tensor([a, b], dtype=torch.float64).reshape(2, 1, 1)
    mask = torch.ones(2, 1, dtype=torch.bool)

    def scores() -> torch.Tensor:
        return -flow_matching_error(velocity.expand(2, 1, 1), targets, mask)

    settle(scores, velocity, beta)
    assert velocity.item() == pytest.approx(0.7 + math.log(P / (1 - P)) / (2 * beta * (a - b)))
