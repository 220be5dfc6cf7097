"""The pages of the simulated bank and of the simulated PayPal, at which customers approve or decline payments."""
