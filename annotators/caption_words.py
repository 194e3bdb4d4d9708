"""The words of captions: labels of the eleven dimensions in English and Chinese; of some, several phrasings with one meaning.

Open dimensions have the labels that are met most (CochlScene's places, AudioSet's sounds). Of others the English sentence quotes
the label, and the Chinese one leaves it out: half a sentence in the wrong language would teach a model to speak so.
"""

from __future__ import annotations

# How clauses may follow one another, and how a sentence may begin.
ORDERS_EN = ("manner last", "manner first", "feeling first", "recording first")
OPENINGS_ZH = ("", "录音中，", "可以听到", "这段录音里，")
ORDERS_ZH = ("delivery first", "voice first")
FEELING_EN, FEELING_ZH = ("sounding {}", "apparently {}"), ("情绪{}", "听起来情绪{}")
BACKGROUND_EN, BACKGROUND_ZH = ("with {} in the background", "and {} in the background"), ("背景中有{}", "伴有{}")
# Who speaks: (gender, age) -> noun phrases; "" stands for unknown.
WHO_EN = {
    ("female", "child"): ("a girl",),
    ("male", "child"): ("a boy",),
    ("", "child"): ("a child",),
    ("female", "teen"): ("a teenage girl",),
    ("male", "teen"): ("a teenage boy",),
    ("", "teen"): ("a teenager",),
    ("female", "adult"): ("a woman", "an adult woman"),
    ("male", "adult"): ("a man", "an adult man"),
    ("", "adult"): ("an adult",),
    ("female", "elderly"): ("an elderly woman",),
    ("male", "elderly"): ("an elderly man",),
    ("", "elderly"): ("an elderly person",),
    ("female", ""): ("a woman or girl",),
    ("male", ""): ("a man or boy",),
    ("", ""): ("someone", "a person", "one person"),
}
WHO_ZH = {
    ("female", "child"): ("一个女孩",),
    ("male", "child"): ("一个男孩",),
    ("", "child"): ("一个孩子",),
    ("female", "teen"): ("一个少女",),
    ("male", "teen"): ("一个少年",),
    ("", "teen"): ("一个青少年",),
    ("female", "adult"): ("一位成年女性", "一位女士"),
    ("male", "adult"): ("一位成年男性", "一位男士"),
    ("", "adult"): ("一位成年人",),
    ("female", "elderly"): ("一位老年女性",),
    ("male", "elderly"): ("一位老年男性",),
    ("", "elderly"): ("一位老人",),
    ("female", ""): ("一位女性",),
    ("male", ""): ("一位男性",),
    ("", ""): ("有人", "一个人", "一位说话人"),
}
# What somebody does with the voice that is neither speaking nor whispering.
DOES_EN = {
    "singing": "sings",
    "laughter": "laughs",
    "crying": "cries",
    "cough": "coughs",
    "sigh": "sighs",
    "sneeze": "sneezes",
    "sniff": "sniffs",
    "throat_clearing": "clears their throat",
}
DOES_ZH = {
    "singing": "唱歌",
    "laughter": "大笑",
    "crying": "哭泣",
    "cough": "咳嗽",
    "sigh": "叹气",
    "sneeze": "打喷嚏",
    "sniff": "抽鼻子",
    "throat_clearing": "清嗓子",
}
SPEED_EN = {
    "slow": ("slowly", "at a slow pace"),
    "normal": ("at a normal pace", "at a moderate speed"),
    "fast": ("fast", "at a fast pace"),
}
SPEED_ZH = {"slow": ("语速较慢", "语速偏慢"), "normal": ("语速适中", "语速正常"), "fast": ("语速较快", "语速偏快")}
PITCH_EN = {"low": ("low-pitched",), "mid": ("mid-pitched", "medium-pitched"), "high": ("high-pitched",)}
PITCH_ZH = {"low": ("音调较低", "音调偏低"), "mid": ("音调中等", "音调适中"), "high": ("音调较高", "音调偏高")}
RHYTHM_EN = {
    "even": ("an even rhythm", "a steady rhythm"),
    "moderate": ("a natural rhythm", "an ordinary rhythm"),
    "varied": ("a varied rhythm", "a changing rhythm"),
    "halting": ("many pauses", "frequent pauses"),
}
RHYTHM_ZH = {
    "even": ("节奏平稳", "节奏均匀"),
    "moderate": ("节奏自然", "节奏适中"),
    "varied": ("节奏多变", "节奏富于变化"),
    "halting": ("停顿较多", "停顿频繁"),
}
EMOTION_EN = {
    "angry": "angry",
    "calm": "calm",
    "disgusted": "disgusted",
    "fearful": "afraid",
    "happy": "happy",
    "neutral": "emotionally neutral",
    "sad": "sad",
    "surprised": "surprised",
}
EMOTION_ZH = {
    "angry": "愤怒",
    "calm": "平静",
    "disgusted": "厌恶",
    "fearful": "恐惧",
    "happy": "高兴",
    "neutral": "中性",
    "sad": "悲伤",
    "surprised": "惊讶",
}
# Open dimensions: the labels of StepEval's sources (CochlScene, AudioSet) that are met most.
STYLE_ZH = {"shouting": "喊叫", "reading": "朗读", "conversational": "聊天", "storytelling": "讲故事", "formal": "正式"}
TIMBRE_ZH = {
    "bright": "明亮",
    "dark": "低沉",
    "deep": "浑厚",
    "hoarse": "沙哑",
    "soft": "柔和",
    "warm": "温暖",
    "clear": "清脆",
    "nasal": "带鼻音",
}
SCENARIO_EN = {
    "bus": "on a bus",
    "cafe": "in a café",
    "car": "in a car",
    "crowded_indoor": "in a crowded room",
    "elevator": "in an elevator",
    "kitchen": "in a kitchen",
    "park": "in a park",
    "residential_area": "in a residential area",
    "restaurant": "in a restaurant",
    "restroom": "in a restroom",
    "street": "in the street",
    "subway": "on the subway",
    "subway_station": "in a subway station",
}
SCENARIO_ZH = {
    "bus": "公交车上",
    "cafe": "咖啡馆里",
    "car": "汽车里",
    "crowded_indoor": "拥挤的室内",
    "elevator": "电梯里",
    "kitchen": "厨房里",
    "park": "公园里",
    "residential_area": "居民区里",
    "restaurant": "餐厅里",
    "restroom": "洗手间里",
    "street": "街上",
    "subway": "地铁上",
    "subway_station": "地铁站里",
}
EVENT_EN = {
    "applause": "applause",
    "baby_cry": "a baby crying",
    "bell": "a bell",
    "bird": "birds",
    "car_horn": "a car horn",
    "cat": "a cat",
    "dog": "a dog barking",
    "door": "a door",
    "keyboard": "typing on a keyboard",
    "music": "music",
    "noise": "noise",
    "rain": "rain",
    "siren": "a siren",
    "thunder": "thunder",
    "traffic": "traffic",
    "wind": "wind",
}
EVENT_ZH = {
    "applause": "掌声",
    "baby_cry": "婴儿哭声",
    "bell": "铃声",
    "bird": "鸟鸣",
    "car_horn": "汽车喇叭声",
    "cat": "猫叫声",
    "dog": "狗叫声",
    "door": "关门声",
    "keyboard": "键盘声",
    "music": "音乐声",
    "noise": "噪声",
    "rain": "雨声",
    "siren": "警笛声",
    "thunder": "雷声",
    "traffic": "车流声",
    "wind": "风声",
}
