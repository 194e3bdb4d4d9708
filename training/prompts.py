"""Instructions in front of a task's examples. Defaults: what the published client says (reference, section 1.8)."""

from __future__ import annotations

from pydantic import Field, field_validator

from manifests.recipes import RecipeModel

LANGUAGE = "{language}"  # in a prompt: the name of the language that is asked for


class Prompts(RecipeModel):
    """One text a task; an empty one leaves the prompt out. Each is tokenised by itself and carries no loss.

    The published prompts cost some ten tokens in Qwen2.5's vocabulary, and a token a byte in a small one without Chinese.
    """

    asr: str = Field(default="请记录下你所听到的语音内容。", description="in front of audio that is written down, and of repeat")
    tts: str = Field(default="以自然的语速读出下面的文字。\n", description="in front of a text that is read aloud")
    s2tt: str = Field(default="请仔细聆听这段语音，然后将其内容翻译成{language}。", description="speech to translated text")
    t2st: str = Field(default="将下面的文本翻译成{language}，并用语音播报。\n", description="text to translated speech")
    s2st: str = Field(
        default="请仔细聆听这段语音，然后将其内容翻译成{language}，并用语音播报。", description="speech to translated speech"
    )
    conversation: str = Field(default="请用语音与我交流。", description="in front of a spoken conversation")
    captioning: dict[str, str] = Field(
        # The wording for captions of speech is not published; these are Stepwell's own.
        default={"en": "Please briefly describe how this speech sounds.", "zh": "请简要描述这段语音听起来怎么样。"},
        description="by language of the caption; a caption in another language is refused",
    )
    languages: dict[str, str] = Field(
        default={"zh": "中文", "en": "英文", "ja": "日文"},
        description="what stands for {language}, by ISO 639-1; a translation into another language is refused",
    )
    between: str = Field(default="\n", description="between the texts of successive utterances")

    @field_validator("s2tt", "t2st", "s2st")
    @classmethod
    def _names_the_language(cls, prompt: str) -> str:
        if prompt and LANGUAGE not in prompt:
            raise ValueError(f"prompt {prompt!r} does not say {LANGUAGE}; nothing else tells the model which one is asked for")
        return prompt
