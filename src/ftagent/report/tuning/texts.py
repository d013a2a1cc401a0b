"""Every sentence of the tuning report, in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ftagent.core.types import Score
from ftagent.report.text import number

Language = Literal["en", "zh"]

TEXTS: Mapping[str, tuple[str, str]] = {
    "title": ("Tuning report: {name}", "调参报告：{name}"),
    "written": ("Written {when} from the journal of run {run}.", "本报告于 {when} 根据运行 {run} 的日志生成。"),
    "verbatim": (
        "What the agent and the programs said is quoted as they said it.",
        "智能体和程序的原话照录，不作翻译。",
    ),
    "interval": ("{value} ({low} to {high})", "{value}（{low} 至 {high}）"),
    "item": ("{label}: {text}", "{label}：{text}"),
    "and": (", ", "，"),
    # How the run ended.
    "status_completed": ("All rounds were done.", "所有轮次均已完成。"),
    "status_budget": ("A limit ended the run.", "运行因达到限额而结束。"),
    "status_stopped": ("The user stopped the run; the best so far was tested and kept.",
                       "用户中止了运行；已对当时的最优配置做了测试并予以保留。"),
    "status_failed": ("The run failed.", "运行失败。"),
    "status_open": ("The run is not finished.", "运行尚未结束。"),
    "spent": ("{rounds} rounds, {time} of wall-clock, {cost} for model calls.",
              "共 {rounds} 轮，总用时 {time}，模型调用费用 {cost}。"),
    # The claim.
    "claim_none": ("Nothing is claimed yet.", "尚无结论。"),
    "claim_default": ("No configuration scored better than the default; the default is recommended.",
                      "没有任何配置的得分高于默认配置；建议沿用默认配置。"),
    "claim_default_constrained": (
        "No configuration that keeps the constraints scored better than the default; the default is recommended.",
        "没有任何满足约束的配置得分高于默认配置；建议沿用默认配置。"),
    "claim_improved": (
        "Loop {loop} is better than the default configuration: {metric} {score} against {base} on {split}.",
        "第 {loop} 轮的配置优于默认配置：在{split}上 {metric} 为 {score}，默认配置为 {base}。"),
    "claim_tie": (
        "Loop {loop} cannot be told from the default configuration: {metric} {score} against {base} on {split}.",
        "第 {loop} 轮的配置与默认配置的差异在统计上无法确认：在{split}上 {metric} 为 {score}，默认配置为 {base}。"),
    "claim_worse": ("Loop {loop} is worse than the default configuration: {metric} {score} against {base} on {split}.",
                    "第 {loop} 轮的配置不如默认配置：在{split}上 {metric} 为 {score}，默认配置为 {base}。"),
    "split_validation": ("the validation items", "验证集"),
    "split_confirm": ("repeated seeds", "重复随机种子"),
    "split_test": ("the sealed test", "封存测试集"),
    # Configurations.
    "configurations": ("Configurations", "配置"),
    "parameter": ("parameter", "参数"),
    "default": ("default", "默认值"),
    "best": ("best", "最优值"),
    "range": ("range", "取值范围"),
    "log_scale": ("{range}, log scale", "{range}，对数刻度"),
    "fixed": ("not tuned", "不参与调参"),
    "best_is": ("Best is {subject}.", "最优配置：{subject}。"),
    "the_default": ("the default configuration", "默认配置"),
    "loop": ("loop {loop}", "第 {loop} 轮"),
    # Rounds.
    "rounds": ("Rounds", "各轮结果"),
    "search_univariate": (
        "One parameter at a time, at most {keys} of them, {rounds} rounds each; the best is fixed before the next.",
        "逐个参数搜索：最多 {keys} 个参数，每个 {rounds} 轮；确定一个参数的最优值之后再调下一个。"),
    "search_joint": ("All parameters at once; numbers by the sampler {sampler}.",
                     "所有参数同时搜索，取值由采样器 {sampler} 给出。"),
    "priority": ("Priority parameters: {keys}.", "优先调节的参数：{keys}。"),
    "because": ("Why these: {why}", "选择理由：{why}"),
    "halving_rule": (
        "Early stopping: at {rungs} rungs a trial ends where its {metric} is not among the best 1/{reduction} and "
        "farther behind the best than any that still overtook another.",
        "提前终止：共设 {rungs} 个检查点；若 {metric} 不在前 1/{reduction}，"
        "且落后最佳试验的幅度大于任何曾反超的试验，则终止。"),
    "intervals": ("{metric} with 95 % intervals; {direction} is better.",
                  "{metric}，附 95% 置信区间；数值{direction}越好。"),
    "direction_maximize": ("higher", "越大"),
    "direction_minimize": ("lower", "越小"),
    "round": ("round", "轮次"),
    "change": ("change", "改动"),
    "score": ("score", "得分"),
    "against_default": ("against the default", "较默认配置"),
    "against_best": ("against the best before", "较此前最优"),
    "result": ("result", "结果"),
    "no_change": ("nothing", "无"),
    "end_scored_accept": ("accepted", "采纳"),
    "end_scored_reject": ("not better", "未采纳"),
    "end_scored": ("scored", "已评分"),
    "end_stopped": ("stopped early", "提前终止"),
    "end_failed": ("failed", "失败"),
    "end_open": ("not finished", "未完成"),
    "exceeds": ("exceeds {names}", "超出约束：{names}"),
    "changed_from": ("Changed from {subject}: {changes}.", "相对{subject}的改动：{changes}。"),
    "why": ("Why", "理由"),
    "advice": ("Advice", "建议"),
    "note": ("Note", "说明"),
    "failure": ("No score", "无得分"),
    "seconds": ("Training took {seconds} s", "训练用时 {seconds} 秒"),
    "peak": (", at most {peak} MB of memory", "，内存峰值 {peak} MB"),
    "no_rounds": ("No round was started.", "没有开始任何一轮。"),
    "configuration": ("Configuration", "完整配置"),
    # Importance.
    "importance": ("Importance of parameters", "参数重要性"),
    "importance_is": (
        "Share of the variance of the score that each parameter explains by itself, scaled to 100 % in all (fANOVA on "
        "{trials} trials).",
        "各参数单独解释的得分方差占比，总和归一化为 100%（对 {trials} 次试验做 fANOVA）。"),
    "importance_doubt": (
        "So few trials, chosen by a search and not at random, give a hint and no more; noise in the scores counts too.",
        "试验次数有限，且由搜索选出而非随机抽样，得分本身也带噪声，因此这些占比只能作为参考。"),
    "share": ("share", "占比"),
    "importance_few": ("Not computed: {trials} trials with a score are too few; at least {fewest} are needed.",
                       "未计算：有得分的试验只有 {trials} 次，至少需要 {fewest} 次。"),
    "importance_package": ("Not computed: scikit-learn is not installed; `pip install 'ftagent[hpo]'` brings it.",
                           "未计算：没有安装 scikit-learn；请执行 `pip install 'ftagent[hpo]'`。"),
    "importance_flat": ("Not computed: the trials do not differ in score or in any tuned parameter.",
                        "未计算：各次试验的得分或所调参数没有差别。"),
    # Curves and pictures.
    "curves": ("Curves", "曲线"),
    "picture_best": ("Score of each round with its interval, and the best so far",
                     "各轮得分及置信区间，以及截至当轮的最优得分"),
    "picture_live": ("Live metric during training", "训练过程中的实时指标"),
    "picture_pareto": ("Trials and the Pareto front", "各次试验与帕累托前沿"),
    "no_curves": ("There is nothing to draw.", "没有可绘制的数据。"),
    "several": ("Several objectives", "多目标"),
    "front": ("The Pareto front: whatever is better than one of these in one objective is worse in another.",
              "以下各轮位于帕累托前沿：其他试验若在某一目标上更好，必在另一目标上更差。"),
    "no_front": ("No trial has all objectives and keeps the constraints.",
                 "没有任何试验既有全部目标的数值又满足约束。"),
    "constraints": ("Constraints", "约束"),
    "constraint": ("constraint", "约束"),
    "at_most": ("at most", "上限"),
    "kept_by": ("kept by", "满足的轮次数"),
    "exceeded_by": ("exceeded by", "超出的轮次"),
    "of_rounds": ("{kept} of {measured} measured", "{measured} 轮有测量值，其中 {kept} 轮满足"),
    "nobody": ("none", "无"),
    # Controls.
    "controls": ("Controls", "对照"),
    "controls_are": (
        "The same default, the same number of loops, the same validation items. Best score so far on validation: the "
        "best of several noisy scores is too good for every one of them alike. No control has opened the sealed test.",
        "默认配置、轮数和验证集均相同。下表为截至各轮的验证集最优得分：从多个带噪声的得分中取最大值会偏高，对各方法同样如此。"
        "对照运行均未打开封存测试集。"),
    "strategy": ("strategy", "方法"),
    "ours": ("this run", "本次运行"),
    "random": ("random search", "随机搜索"),
    "tpe": ("Optuna TPE", "Optuna TPE"),
    "gain": ("gain over the default", "较默认配置的提升"),
    "first_best": ("reached by", "达到该得分的轮次"),
    "training_time": ("training time", "训练用时"),
    "after": ("after {n}", "{n} 轮后"),
    "controls_open": ("Not finished: {names}; `ftagent resume` goes on with them.",
                      "尚未完成：{names}；可用 `ftagent resume` 继续。"),
    # Final summary.
    "summary": ("Final summary", "总结"),
    "split": ("split", "数据划分"),
    "difference": ("difference", "差值"),
    "items": ("items", "条目数"),
    "missing": ("missing", "无"),
    "paired": ("Paired test on {split}: p = {p}, corrected for {n} comparison(s); verdict: {verdict}.",
               "在{split}上的配对检验：p = {p}，已按 {n} 次比较校正；结论：{verdict}。"),
    "paired_record": ("As recorded: {reason}.", "日志原文：{reason}。"),
    "verdict_improved": ("improved", "有提升"),
    "verdict_tie": ("tie", "无法区分"),
    "verdict_worse": ("worse", "变差"),
    "test_never": ("The sealed test was never opened.", "封存测试集从未打开。"),
    "test_opened": ("The sealed test was opened {times} time(s).", "封存测试集共打开 {times} 次。"),
    "not_sealed": (
        "**Not sealed**: commands could have read answers or the network; do not compare with sealed scores.",
        "**未封存**：命令本可读取答案或访问网络；请勿与封存条件下的得分相比。"),
    "cached": ("{count} training stage(s) came from the cache; their seconds are not those of a training.",
               "有 {count} 个训练阶段取自缓存，其用时不代表真实训练时间。"),
    "model_at": ("The model is in {path}.", "最优模型位于 {path}。"),
    "study_at": ("All trials as an Optuna study: {command}", "全部试验已导出为 Optuna study：{command}"),
}  # fmt: skip


class Words:
    """The texts of one language."""

    def __init__(self, language: Language) -> None:
        self._column = ("en", "zh").index(language)

    def __call__(self, key: str, **values: object) -> str:
        """Raises KeyError for a text that is not there, or a value that it needs."""
        return TEXTS[key][self._column].format(**values)

    def score(self, score: Score | None) -> str:
        """With its 95 % interval."""
        if score is None:
            return self("missing")
        low, high = score.ci95
        if score.n == 1 and low == high:
            return f"{number(score.value)} (n 1)"
        return self("interval", value=number(score.value), low=number(low), high=number(high))

    def sentences(self, *parts: str) -> str:
        """One paragraph of sentences; Chinese has no space between them."""
        return ("" if self._column else " ").join(part for part in parts if part)

    def listed(self, parts: list[str]) -> str:
        return ("、" if self._column else ", ").join(parts)
