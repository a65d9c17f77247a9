"""The LightningModule, its loss, schedule and callbacks."""
