"""AN4 with the model of deepspeech.pytorch (5 x 1024, batch 8, clip 400 of the summed loss).

    python main.py --config configs/an4.py

This recipe needs an accelerator. It was never trained, so its error rates are unknown. It differs from the original in
the settings that helped on two cores (configs/an4_cpu.py, docs/an4.md): mel bands with the mean of each band removed,
smaller kernels over frequency, speed perturbation of every utterance, SpecAugment's masks, weight decay, and a moving
average of the weights.
"""

from ds2_jax.config import AugmentConfig, Config, DataConfig, FeatureConfig, ModelConfig, OptimConfig, PerturbConfig

config = Config(
    epochs=70,
    features=FeatureConfig(num_mels=64, normalisation="bins"),
    data=DataConfig(corpus="an4", batch_size=8, num_buckets=8),
    perturb=PerturbConfig(speed_probability=1.0),
    augment=AugmentConfig(num_frequency_masks=2, frequency_mask_width=6, num_time_masks=3, time_mask_width=30),
    model=ModelConfig(frequency_kernels=(21, 11)),
    optim=OptimConfig(clip_norm=50.0, weight_decay=0.3, ema_decay=0.998),
)
