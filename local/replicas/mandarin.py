"""Mandarin sentences of meetings, in hanzi, and the voices that speak them.

As in `tagspeech.simulation.sentences`, the hash of a sentence decides its split. Words are
separated by spaces until the transcript is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tagspeech.simulation.conversation import Utterance, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import draw_backchannel, draw_sentence
from tagspeech.simulation.voices import Voice

BACKCHANNELS = (
    "嗯", "对", "好", "好的", "是的", "没错", "可以", "明白", "当然", "真的 吗", "对 对", "好 谢谢",
    "嗯 可以", "好的 明白", "没 问题",
)  # fmt: skip

GRAMMAR: dict[str, tuple[str, ...]] = {
    "SENTENCE": (
        "我们 WHEN MUST DO THING", "OPENER 我们 WHEN MUST DO THING", "WHO MUST WHEN DO THING",
        "WHO 觉得 THING 很 QUALITY", "OPENER WHO 觉得 THING 不够 QUALITY",
        "THING 是不是 太 QUALITY", "这个 THING 很 QUALITY", "OPENER 这个 THING 还 不够 QUALITY",
        "WHO WHEN 已经 DO 了 THING", "我 不 喜欢 那个 QUALITY 的 THING",
        "你 喜欢 这个 QUALITY 的 THING 吗",
        "OPENER 我们 还 需要 DIGIT 个 THING", "会议 WHEN DIGIT 点 开始", "THING 要 DIGIT 百 块 钱",
        "我 的 电话 是 DIGIT DIGIT DIGIT DIGIT", "请 看 第 DIGIT 页",
        "请 大家 看 第 DIGIT 页 的 THING",
        "WHO 说 THING 不够 QUALITY", "为什么 THING 这么 QUALITY", "OPENER 这个 THING 谁 来 DO",
        "我们 先 DO THING 再 DO THING", "WHO 和 WHO WHEN 一起 DO THING", "下 一个 问题 是 THING",
        "WHEN 能不能 DO THING", "大家 对 THING 有 什么 意见",
        "OPENER THING 和 THING 哪个 更 QUALITY",
    ),
    "OPENER": ("那么", "好", "嗯", "但是", "所以", "其实", "然后"),
    "WHO": ("我", "你", "他", "她", "小王", "小李", "小张", "老陈"),
    "MUST": ("应该", "可以", "必须", "想", "要"),
    "DO": ("讨论", "检查", "修改", "完成", "准备", "介绍", "决定"),
    "THING": ("计划", "报告", "预算", "设计", "屏幕", "电池", "价格", "颜色", "项目", "邮件",
              "产品"),
    "QUALITY": ("新", "大", "小", "便宜", "贵", "好", "快", "简单", "重要"),
    "WHEN": ("今天", "明天", "下午", "上午", "现在", "下 周", "星期 DAY"),
    "DAY": ("一", "二", "三", "四", "五"),
    "DIGIT": ("一", "二", "三", "四", "五", "六", "七", "八", "九"),
}  # fmt: skip


def mandarin(
    espeak: Espeak, rng: np.random.Generator, split: str
) -> Callable[[Voice, bool], Utterance]:
    """Returns a function that draws a Mandarin sentence or back-channel of a voice."""

    def say(voice: Voice, is_backchannel: bool) -> Utterance:
        if is_backchannel:
            text = draw_backchannel(rng, BACKCHANNELS)
        else:
            text = draw_sentence(rng, split, grammar=GRAMMAR)
        spoken = utter(espeak, replace(voice, espeak=f"cmn+{voice.variant}"), text)
        return replace(spoken, voice=voice)

    return say
