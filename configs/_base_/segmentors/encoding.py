# Both heads of PyTorch-Encoding's recipe: corners aligned, an auxiliary loss of weight 0.2; tests
# slide a window over the image.
aligned = dict(align_corners=True)
auxiliary = dict(aligned, loss_decode=dict(loss_weight=0.2))
window = dict(_delete_=True, mode='slide', crop_size=(480, 480), stride=(320, 320))
