"""Texts of the report that ``loss-atlas demo`` writes, in Korean."""

KO = {
    "title": "숫자 이미지에서 본 test_resnet의 손실 경관",
    "made": "Loss Atlas가 {seconds:.0f}초 동안 만들었습니다.",
    # said in the terminal
    "step.train": "숫자 이미지로 test_resnet 학습, 시드 {seed}",
    "step.sharpness": "날카로움 측정",
    "step.surface": "손실 곡면 그리기",
    "step.path": "두 신경망 잇기",
    "step.average": "가중치 평균",
    # in the report
    "seed": "시드 {seed}",
    "train_loss": "학습 손실",
    "held_out_loss": "검증 손실",
    "held_out_accuracy": "검증 정확도",
    "networks": "두 신경망",
    "networks.about": "아키텍처와 데이터는 같고 시드만 다릅니다.",
    "sharpness": "얼마나 날카로운가?",
    "sharpness.about": "반지름 ρ인 공 안에서 찾은 가장 큰 손실 증가(최댓값의 하한이며, 괄호는 둘째로 좋은 시작점이 얼마나 아래에서 끝났는지), "
    "노이즈에서의 평균 증가와 그 표준오차, 헤시안의 가장 큰 고유값과 그 잔차, 대각합과 그 표준오차.",
    "worst": "최악의 증가",
    "average": "평균 증가",
    "lambda_max": "λ_max",
    "residual": "{value} (잔차 {residual})",
    "trace": "대각합",
    "surface": "둘레의 손실 곡면은 어떤 모양인가?",
    "surface.about": "시드 0을 지나는, 필터로 정규화한 무작위 방향 둘 (Li et al. 2018). 점 {all}개 중 {points}개를 쟀고, 나머지는 로그 손실 범위의 "
    "{error:.1%} 이내로 추정되는 오차로 보간했습니다.",
    "path": "어떻게 이어져 있는가?",
    "path.about": "직선의 장벽 {straight:.3f} nats, 학습한 베지에 곡선의 장벽 {curve:.3f} nats (Garipov et al. 2018; 장벽의 정의는 "
    "Entezari et al. 2022).",
    "swa": "평균은 무엇을 하는가?",
    "swa.about": "학습의 마지막 4분의 1에 걸친 확률적 가중치 평균(SWA)을 마지막 반복과 나란히 놓았습니다 (Izmailov et al. 2018). 시드가 하나이므로 "
    "방법에 대한 주장은 아닙니다.",
}
