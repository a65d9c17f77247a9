"""A table of two small networks on digits, for the tests."""

SMALL = [
    *(
        "trainer.accelerator=cpu",
        "logger=none",
        "epochs=1",
        "scheduler.warmup_epochs=0",
        "optimizer.lr=1e-3",
    ),
    *("dataset.train_subset=100", "timesteps=1", "plots=false"),
]
TABLE = {
    "title": "Digits & 100 % of them",
    "seeds": [0, 1],
    "columns": [
        *("test_top1", "val_best", "val_last", "best_epoch", "last_epoch", "params", "rate"),
        *("sops", "energy", "energy_strict", "published", "published_energy"),
    ],
    "rows": [
        {"label": "SAFormer_tiny", "published": "SAFormer"},
        {"label": "no DWC | none", "overrides": ["ablation=no_dwc"]},
    ],
}
