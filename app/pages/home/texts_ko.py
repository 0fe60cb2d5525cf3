"""Texts of the page Home, in Korean."""

KO = {
    "nav": "홈",
    "nav.help": "실제 손실 경관 하나와, 각 쪽이 답하는 물음.",
    "title": "Loss Atlas",
    "question": "학습된 신경망은 가중치 공간의 한 점입니다. 여기서는 그 둘레의 지형을 봅니다.",
    "missing": "예시 경관이 이 설치본에 없습니다 (assets/demo_surface.npz).",
    "caption": "test_resnet 신경망 셋(timm)을 손글씨 숫자 1,437장으로 각자의 시드에서 학습하고, 셋을 지나는 평면에서 학습 이미지 512장의 손실을 쟀습니다. 배치 정규화 통계는 점마다 다시 계산했습니다. 신경망은 저마다의 골짜기에 있고, 곧은 길에는 그 사이에 벽이 있습니다.",
    "tour": "각 쪽이 답하는 물음",
    "start": "여기서 시작하세요",
    "start.text": "한 번 누르면 손글씨 숫자로 작은 신경망을 학습하고, 그 둘레의 지형을 그리고, 강의의 일곱 절을 둘러보기 시작합니다. 2분쯤, 내려받기 없음.",
    "go": "학습하고 그려 보기",
    "start.link": "내 모델: 작업대",
    "turn": "경관 돌리기",
    "turn.help": "마우스로 끌어 돌릴 수도 있습니다. 두 번 누르면 처음으로 돌아갑니다.",
    "view": "보기",
    "view.relief": "입체",
    "view.map": "지도",
    "number.loss": "A, B, C의 손실 (최대)",
    "number.accuracy": "검증 정확도 (최소)",
    "number.barrier": "이 평면의 가장 높은 손실",
    "number.points": "잰 점의 수",
}
