from evaluation.intervals import Interval
from evaluation.lesion_score import KeptContrast
from report.tables import Table, as_latex, difference_text, kept_text, mean_and_spread

NAN = float("nan")


def test_table_rows_may_be_short():
    assert Table(["a", "b", "c"], [["1", "2", "3"], ["4"]]).markdown() == [
        "| a | b | c |",
        "|---|---|---|",
        "| 1 | 2 | 3 |",
        "| 4 |  |  |",
    ]


def test_absent_and_single_scores():
    assert mean_and_spread(1.25, 0.5, 2) == "1.25 ± 0.50"
    assert mean_and_spread(NAN, NAN, 2) == "absent"
    assert mean_and_spread(1.25, NAN, 1) == "1.2"


def test_differences_have_a_sign_and_an_interval_if_there_is_one():
    assert difference_text(Interval(0.5, 0.1, 0.9, 4), 2) == "+0.50 [0.10, 0.90]"
    assert difference_text(Interval(-0.5, NAN, NAN, 2), 1) == "-0.5"
    assert difference_text(Interval(NAN, NAN, NAN, 2), 1) == "absent"


def test_kept_contrast_in_words():
    assert kept_text(KeptContrast(0.96, 0.02, 0.9, 0.01)) == "0.96±0.02 0.90 0.01"
    assert kept_text(KeptContrast(0.96, NAN, 0.9, NAN)) == "0.96 0.90 -"
    assert kept_text(None) == "-"


def test_a_table_in_latex():
    rows = [["`kt_sparse`, a_b", "-0.5 ± 1.5"], ["100 %"]]
    table = Table(["method", "PSNR (dB)"], rows, "A_1", "<4")
    assert table.latex() == [
        r"\begin{table}",
        r"  \centering",
        r"  \caption{A\_1. \textless{}4}",
        r"  \begin{tabular}{lr}",
        r"    \toprule",
        r"    method & PSNR (dB) \\",
        r"    \midrule",
        r"    \texttt{kt\_sparse}, a\_b & $-$0.5 $\pm$ 1.5 \\",
        r"    100 \% &  \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    assert as_latex("**+0.50 [0.10, 0.90]** -1") == r"\textbf{+0.50 [0.10, 0.90]} $-$1"
    assert as_latex("k-t sparse \\ {x}") == r"k-t sparse \textbackslash{} \{x\}"
