import torch

from aae_core.evaluation.classification import error, per_cent


def test_error_counts_images_whose_largest_score_is_another_class() -> None:
    scores = torch.tensor([[0.1, 3.0, -1.0], [5.0, 4.0, 4.9], [-3.0, -2.0, -9.0], [0.0, 0.0, 0.1]])
    assert error(scores, torch.tensor([1, 0, 1, 2])) == 0
    assert error(scores, torch.tensor([1, 0, 1, 0])) == 25
    assert error(scores, torch.tensor([0, 1, 2, 0])) == 100


def test_error_depends_only_on_the_order_of_scores() -> None:
    scores = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 10
    assert error(scores, y) == error(scores.softmax(1), y) == error(3 * scores - 7, y)


def test_per_cent_is_exact_for_many_images() -> None:
    wrong = torch.arange(26_032) < 4_608
    assert per_cent(wrong) == 100 * (4_608 / 26_032)
